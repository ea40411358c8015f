"""Certificates for mutual TLS, made by the openssl command."""

import shutil
import subprocess
from pathlib import Path

import pytest

_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class Authority:
    """Signs certificates of who may take part."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("the openssl command is not installed")
        folder.mkdir()
        self._folder = folder
        self.certificate = folder / "ca.pem"
        self._key = folder / "ca.key"
        _openssl(
            "req", "-x509", *_CURVE, "-keyout", self._key, "-out", self.certificate,
            "-subj", "/CN=an authority of a test", "-days", "2",
        )  # fmt: skip

    def issue(self, name: str, *addresses: str) -> tuple[Path, Path]:
        """A certificate for these addresses (`IP:127.0.0.1`, `DNS:name`), and its key."""
        made, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={','.join(addresses)}\n")
        _openssl("req", *_CURVE, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        _openssl(
            "x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key,
            "-CAcreateserial", "-out", made, "-days", "2", "-extfile", extensions,
        )  # fmt: skip
        return made, key


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
