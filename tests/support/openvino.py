"""The OpenVINO runner for tests, where it is installed; its graphs are kept for a session."""

import atexit
import importlib.util
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

INSTALLED = importlib.util.find_spec("openvino") is not None
needs_openvino = pytest.mark.skipif(not INSTALLED, reason="needs openvino: penstock[openvino]")


@cache
def graph_folder() -> Path:
    folder = Path(mkdtemp(prefix="penstock-graphs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def open_openvino(path: Path, dtype: str = "float32") -> Any:
    """A model compiled for one thread: operations this small lose by sharing."""
    from engines.openvino.loading import open_model  # noqa: PLC0415 - where it is installed

    return open_model(path, dtype=dtype, cache=graph_folder(), threads=1)


def openvino_runner(loaded: Any, **sizes: Any) -> Any:
    from engines.openvino.runner import OpenvinoRunner  # noqa: PLC0415 - likewise

    return OpenvinoRunner(loaded, **sizes)
