"""Which engine computes where nobody said which: openvino on CPUs where it can, else torch."""

import logging
from importlib import metadata
from pathlib import Path

import pytest
import torch

from engines.bundled import penstock_tiny
from engines.errors import ModelRejected
from engines.openvino import version
from gateway.opening import open_engine
from gateway.openvino_choice import check_settings, gpu_computes, graph_folder
from gateway.settings import Settings
from tests.support.openvino import graph_folder as graphs
from tests.support.openvino import needs_openvino

SMALL = {"kv_cache_memory": 4 << 20, "max_running": 2, "max_context": 128}


async def opened(caplog, **settings):
    """Open the bundled model; what the log says of the choice."""
    given = {"graph_cache_dir": graphs(), **SMALL, **settings}
    with caplog.at_level(logging.INFO, "gateway.opening"):
        found = open_engine(Settings(**given), lambda _: None, lambda _: None)
        await found.engine.stop(grace_s=0)
    return [record.getMessage() for record in caplog.records if record.name == "gateway.opening"]


@needs_openvino
@pytest.mark.anyio
async def test_openvino_computes_the_bundled_model_unless_told_otherwise(caplog):
    """In float32, as torch would on a CPU; the log tells it."""
    assert Settings().engine == "auto"
    assert await opened(caplog, device="cpu") == ["openvino computes, in float32"]


@needs_openvino
@pytest.mark.parametrize("dtype", version.QUANTISED)
@pytest.mark.anyio
async def test_quantised_weights_are_openvinos(caplog, dtype):
    """Without a word about the engine; the log tells what they are."""
    assert await opened(caplog, device="cpu", dtype=dtype) == [f"openvino computes, in {dtype}"]


@pytest.mark.anyio
async def test_torch_computes_where_openvino_cannot_and_the_log_says_why(caplog):
    """A setting that openvino cannot follow is no reason not to serve."""
    (line,) = await opened(caplog, device="cpu", block_size=16)
    assert line.startswith("torch computes: ")
    assert "--block-size 16" in line or "not installed" in line


@pytest.mark.anyio
async def test_another_version_of_openvino_is_told_and_left_alone(caplog, monkeypatch):
    """Its operation is private: torch computes then."""
    monkeypatch.setattr(version, "version", lambda _: "2027.1.0")
    (line,) = await opened(caplog, device="cpu")
    assert line.startswith("torch computes: OpenVINO 2027.1.0 is installed; this engine is for")


@pytest.mark.parametrize("dtype", version.QUANTISED)
@pytest.mark.anyio
async def test_quantised_weights_are_never_silently_something_else(caplog, dtype):
    """What only openvino has is not computed by torch."""
    told = rf"{dtype} is openvino's alone, which cannot.*block-size"
    with pytest.raises(ModelRejected, match=told):
        await opened(caplog, device="cpu", block_size=16, dtype=dtype)


def test_a_gpu_is_torchs(tmp_path, monkeypatch):
    """Torch is asked where there is a device file, or it was chosen."""
    assert not gpu_computes(Settings(), tmp_path)
    assert not gpu_computes(Settings(device="cpu"), tmp_path)
    assert gpu_computes(Settings(device="cuda:1"), tmp_path)
    (tmp_path / "nvidia0").touch()
    assert gpu_computes(Settings(), tmp_path) == torch.cuda.is_available()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert gpu_computes(Settings(), tmp_path)
    assert not gpu_computes(Settings(device="cpu"), tmp_path)


def test_graphs_are_kept_under_home_unless_it_cannot_be_written(tmp_path, monkeypatch, caplog):
    """Else they are made at every start, and the log says so."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert graph_folder(Settings()) == tmp_path / ".cache" / "penstock" / "graphs"
    assert graph_folder(Settings()).is_dir()
    assert graph_folder(Settings(graph_cache_dir=tmp_path / "g")) == tmp_path / "g"
    (tmp_path / "file").touch()
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "file")
    assert graph_folder(Settings()) is None
    assert "lowered at every start" in caplog.text


def test_what_openvino_cannot_do_is_refused_by_name(monkeypatch):
    """Where it was asked for."""
    monkeypatch.setattr(version, "version", lambda _: f"{version.VERSION}.9")
    check_settings(Settings(engine="openvino"), penstock_tiny())
    with pytest.raises(ModelRejected, match="--device cuda"):
        check_settings(Settings(engine="openvino", device="cuda"), penstock_tiny())
    with pytest.raises(ModelRejected, match="--tensor-parallel 2: openvino computes in one"):
        check_settings(Settings(tensor_parallel=2), penstock_tiny())
    with pytest.raises(ModelRejected, match="--block-size 16"):
        check_settings(Settings(engine="openvino", block_size=16), penstock_tiny())


def test_without_openvino_it_is_told_how_to_get_it(monkeypatch):
    """In a sentence."""

    def missing(_):
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(version, "version", missing)
    with pytest.raises(ModelRejected, match=r"penstock\[openvino\]"):
        check_settings(Settings(engine="openvino"), penstock_tiny())
