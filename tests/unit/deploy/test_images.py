"""deploy/Dockerfile, which nothing here can build: what can be known of it without building."""

import shlex
import tomllib
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.deploy_files import (
    DOCKERFILE,
    ROOT,
    chain,
    commands,
    flags,
    in_context,
    json_words,
    stages,
)

STAGES = stages(DOCKERFILE.read_text())
SERVERS = ("gateway", "worker")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = ("kvcache", "engines", "openai_compat", "gateway")


def copied(stage):
    """(sources, the stage they come from or None) of each COPY."""
    for rest in stage.of("COPY"):
        words = shlex.split(rest)
        origin = next((w.partition("=")[2] for w in words if w.startswith("--from=")), None)
        yield [word for word in words if not word.startswith("--")][:-1], origin


def test_what_is_copied_exists_and_is_not_ignored():
    """Of the repository, or of a stage that stands above."""
    seen = set()
    for stage in STAGES.values():
        for sources, origin in copied(stage):
            if origin is not None:
                assert origin in seen
                continue
            for source in sources:
                assert (ROOT / source).exists(), source
                assert in_context(source), source
        seen.add(stage.name)


def test_the_context_holds_the_product_and_no_more():
    """No tests, no git, no environment, no secret of this folder reaches a builder."""
    sent = {path.name for path in ROOT.iterdir() if in_context(path.name)}
    assert sent == {*PACKAGES, "pyproject.toml", "requirements.lock", "README.md", "LICENSE"}
    assert not in_context("deploy/compose/secrets/redis-password")
    assert not in_context("gateway/__pycache__/cli.pyc")
    built = {source for sources, origin in copied(STAGES["wheel"]) for source in sources}
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = patterns["packages"]["find"]["include"]
    assert {pattern.rstrip("*") for pattern in found} <= built


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_runs_as_nobody_in_particular(name):
    """A fixed user by number, so that a cluster can see that it is not root."""
    (user,) = STAGES[name].of("USER")
    assert user == "10001:10001"
    assert "--uid 10001 " in " ".join(STAGES["base"].of("RUN"))
    (sign,) = STAGES[name].of("STOPSIGNAL")
    assert sign == "SIGTERM"
    assert len(STAGES[name].of("HEALTHCHECK")) == 1


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_carries_no_builder(name):
    """What runs is an environment made elsewhere: no compiler, no pip, no source."""
    (stage,) = [each for each in chain(STAGES, name) if each.name == name]
    assert not stage.of("RUN")
    assert list(copied(stage)) == [(["/opt/penstock"], f"{name}-environment")]
    made = " ".join(STAGES[f"{name}-environment"].of("RUN"))
    assert "venv --without-pip /opt/penstock" in made


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_starts_as_its_command_takes_it(name):
    """The entry point, and flags that there are."""
    words = [*json_words(STAGES[name].of("ENTRYPOINT")[0]), *json_words(STAGES[name].of("CMD")[0])]
    assert words[:2] == ["penstock", name]
    assert PROJECT["scripts"]["penstock"] == "gateway.cli:main"
    assert {word for word in words if word.startswith("--")} <= flags(name)


def test_every_install_is_held_to_the_lock():
    """And only extras are asked for that there are."""
    for stage in STAGES.values():
        for command in stage.of("RUN"):
            for part in command.split("&&"):
                if " install " in part and "pip" in part:
                    assert "--constraint requirements.lock" in part, part
                    assert stage.of("COPY"), "the lock is copied first"
    asked = " ".join(STAGES["worker-environment"].of("RUN"))
    extras = {extra for extra in PROJECT["optional-dependencies"] if f"[{extra}]" in asked}
    assert extras == {"torch"}
    assert "[" not in " ".join(STAGES["gateway-environment"].of("RUN"))


# The project itself, which an extra names; test_openvino_is_installed_without_its_telemetry.
LEFT_OUT = {"penstock", "openvino-telemetry"}


def needed(*extras):
    """The names of all that an installation brings, of whatever depth."""
    groups = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *(each for extra in extras for each in groups[extra])]
    todo, seen = [Requirement(each) for each in wanted], set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        marked = requirement.marker is None or any(
            requirement.marker.evaluate({"extra": extra}) for extra in requirement.extras or {""}
        )
        if not marked or name in seen or name in LEFT_OUT:
            continue
        seen.add(name)
        for line in metadata.requires(name) or ():
            below = Requirement(line)
            active = [
                extra
                for extra in requirement.extras | {""}
                if below.marker is None or below.marker.evaluate({"extra": extra})
            ]
            if active:
                below.marker = None
                todo.append(below)
    return seen


def test_all_that_an_image_installs_has_a_version_in_the_lock():
    """So a constraint leaves nothing to the day of the build."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pinned = {canonicalize_name(line.partition("==")[0]) for line in lines if "==" in line}
    light, heavy = needed(), needed("torch", "openvino")
    assert len(light) > 25
    assert heavy <= pinned
    assert light < heavy


def test_openvino_is_installed_without_its_telemetry():
    """Alone, after all else: in the image of a worker, and by `make setup`."""
    installs = [
        part
        for command in STAGES["worker-environment"].of("RUN")
        for part in command.split("&&")
        if part.rstrip().endswith(" openvino")
    ]
    made = [line for line in (ROOT / "Makefile").read_text().splitlines() if "install" in line]
    (by_make,) = [line for line in made if line.rstrip().endswith(" openvino")]
    assert len(installs) == 1
    assert all("--no-deps" in line for line in (*installs, by_make))
    assert "telemetry" not in (ROOT / "requirements.lock").read_text().replace("opentelemetry", "")


def test_a_gateway_carries_no_tensors():
    """Neither torch nor transformers, by whatever way."""
    assert not needed() & {"torch", "transformers", "safetensors"}
    assert {"torch", "transformers"} <= needed("torch")


def test_the_images_have_the_version_of_the_product():
    """In the commands that are shown, and in what compose builds."""
    shown = DOCKERFILE.read_text()
    for name in SERVERS:
        assert f"--target {name} -t penstock-{name}:{PROJECT['version']} ." in shown
    for path in (ROOT / "deploy" / "compose").glob("*.yaml"):
        for line in path.read_text().splitlines():
            if "image: penstock-" in line:
                assert line.endswith(f":{PROJECT['version']}")


def test_commands_of_the_folder_take_their_flags():
    """Wherever `penstock COMMAND --flag` stands in deploy/ and its page."""
    texts = [path for path in (ROOT / "deploy").rglob("*") if path.is_file()]
    for path in (*texts, ROOT / "docs" / "deploy.md"):
        for command, given in commands(path.read_text()):
            assert given <= flags(command), f"{path}: {given - flags(command)}"
