"""The files of deploy/ say what the commands and the engine take."""

import importlib
import shlex
from pathlib import Path

import pytest
import yaml

from engines.trtllm.config import read_config
from engines.trtllm.features import read_features
from gateway.settings import flags_of, setting_fields
from tests.support.trtllm_standin.facts import VERSIONS
from tests.support.trtllm_standin.package import installed

FOLDER = Path(__file__).parents[3] / "deploy" / "tensorrt-llm"


def flags(words):
    return {word.partition("=")[0] for word in words if word.startswith("--")}


def known(command):
    return {f"--{field.name.replace('_', '-')}" for field in flags_of(command)}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_engine_is_configured_by_keys_that_it_has(version):
    """Of every version."""
    with installed(version):
        names = ("tensorrt_llm", "tensorrt_llm.llmapi")
        features = read_features(*map(importlib.import_module, names))
        config = read_config((FOLDER / "engine.yaml").read_text(), features)
    assert config.own.name == "llama-3.3-70b"


def test_the_image_starts_a_worker_as_the_command_takes_it():
    """Flags that exist, and the file that the other flag names."""
    lines = (FOLDER / "Dockerfile").read_text().splitlines()
    (entry,) = [line for line in lines if line.startswith("ENTRYPOINT")]
    (given,) = [line for line in lines if line.startswith("CMD")]
    words = yaml.safe_load(entry.partition(" ")[2]) + yaml.safe_load(given.partition(" ")[2])
    assert words[:2] == ["penstock", "worker"]
    assert flags(words) <= known("worker")


def test_the_set_starts_a_worker_as_the_command_takes_it():
    """Its flags and variables exist, and every volume that is mounted is there."""
    manifest = yaml.safe_load((FOLDER / "leaderworkerset.yaml").read_text())
    template = manifest["spec"]["leaderWorkerTemplate"]
    for pod in (template["leaderTemplate"], template["workerTemplate"]):
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        (container,) = pod["spec"]["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    (leader,) = template["leaderTemplate"]["spec"]["containers"]
    words = shlex.split(leader["args"][0])
    begun = words[words.index("penstock") :]
    assert begun[:2] == ["penstock", "worker"]
    assert flags(begun) <= known("worker")
    variables = {f"PENSTOCK_{field.name.upper()}" for field in setting_fields()}
    named = {entry["name"] for entry in leader["env"] if entry["name"].startswith("PENSTOCK")}
    assert named <= variables
    (name,) = {yaml.safe_load((FOLDER / "engine.yaml").read_text())["penstock"]["name"]}
    assert begun[-1].endswith(name)  # the model that a gateway compares by name
    sizes = yaml.safe_load((FOLDER / "engine.yaml").read_text())
    ranks = sizes["tensor_parallel_size"] * sizes["pipeline_parallel_size"]
    assert words[words.index("-np") + 1] == str(ranks)
    assert template["size"] * 8 == ranks
