"""Lowered graphs on disk, by the digest of all they were made from: lowered once, then mapped.

    <folder>/<digest>/model.xml, model.bin

An entry is written beside its place and moved there whole, so that several workers may lower one
model at once and none reads half a file.
"""

import shutil
from collections.abc import Callable
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from tempfile import mkdtemp

import openvino
from openvino import Model

from engines.openvino.version import VERSION
from engines.tiers.fingerprint import fingerprint, weights_digest

GRAPH = "model.xml"
_LOWERING = "2"  # to be counted up with every change of what is lowered or how


def graph_digest(path: Path, files: tuple[Path, ...], dtype: str) -> str:
    """Names what a model directory becomes in a data type; reads every byte of its weights."""
    return fingerprint(
        f"openvino {VERSION} {_LOWERING}",
        version("torch"),
        version("transformers"),
        dtype,
        blake2b((path / "config.json").read_bytes()).hexdigest(),
        weights_digest(files),
    ).hex()


def graph_of(folder: Path, digest: str) -> Path:
    """Where the graph of a digest is, or will be."""
    return folder / digest / GRAPH


def cached(folder: Path, digest: str, lower: Callable[[], Model]) -> Path:
    """The graph of a digest in a folder, lowered and stored if it is not there. Raises OSError."""
    place = folder / digest
    if not (place / GRAPH).exists():
        folder.mkdir(parents=True, exist_ok=True)
        making = Path(mkdtemp(prefix=f".{digest}-", dir=folder))
        try:
            _save(lower(), making / GRAPH)
            _move(making, place)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return place / GRAPH


def _save(graph: Model, file: Path) -> None:
    try:
        openvino.save_model(graph, file, compress_to_fp16=False)
    except RuntimeError as error:  # how OpenVINO tells that a disk is full
        raise OSError(str(error)) from error


def _move(making: Path, place: Path) -> None:
    try:
        making.rename(place)
    except OSError:
        if not (place / GRAPH).exists():  # else another worker was first
            raise
