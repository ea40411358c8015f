"""deploy/compose: two gateways and two workers that meet, and nobody who could do more."""

import re

import yaml

from tests.support.deploy_files import DEPLOY, DOCKERFILE, ROOT, stages

FOLDER = DEPLOY / "compose"
MAIN = yaml.safe_load((FOLDER / "compose.yaml").read_text())
STATE = yaml.safe_load((FOLDER / "redis.yaml").read_text())
SERVICES = MAIN["services"]
ADDED = {name: STATE["services"][name] for name in ("redis", "redis-setup")}
GATEWAYS, WORKERS = ("gateway-1", "gateway-2"), ("worker-1", "worker-2")


def test_gateways_call_the_workers_that_there_are():
    """By the names that their certificate has."""
    (listen,) = re.findall(r"PENSTOCK_LISTEN=0\.0\.0\.0:(\d+)", DOCKERFILE.read_text())
    wanted = ",".join(f"{name}:{listen}" for name in WORKERS)
    for name in GATEWAYS:
        assert SERVICES[name]["environment"]["PENSTOCK_WORKER"] == wanted
    assert tuple(SERVICES["certificates"]["command"]) == WORKERS


def test_every_container_is_held_to_what_it_needs():
    """A root that cannot be written, no capability, no way to more rights."""
    for name, service in {**SERVICES, **ADDED}.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not service.get("privileged")
    for service in SERVICES.values():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), "only this machine calls it"


def test_only_gateways_meet_workers_and_the_outside():
    """Networks without a way out for whoever needs none."""
    for name in WORKERS:
        assert SERVICES[name]["networks"] == ["workers"]
        assert STATE["services"][name]["networks"] == ["workers", "state"]
        assert "ports" not in SERVICES[name]
    assert MAIN["networks"]["workers"] == {"internal": True}
    assert STATE["networks"]["state"] == {"internal": True}
    for service in ADDED.values():
        assert service["networks"] == ["state"]
    assert SERVICES["certificates"]["network_mode"] == "none"


def test_a_container_is_given_longer_than_it_drains():
    """Else the drain ends with a kill."""
    for name in (*GATEWAYS, *WORKERS):
        service = SERVICES[name]
        drain_s = float(service["environment"]["PENSTOCK_DRAIN_TIMEOUT_S"])
        assert int(service["stop_grace_period"].removesuffix("s")) >= drain_s + 15


def test_what_is_built_is_a_stage():
    """From the root of the repository."""
    made = stages(DOCKERFILE.read_text())
    for service in SERVICES.values():
        build = service["build"]
        assert (FOLDER / build["context"]).resolve() == ROOT
        assert (ROOT / build["dockerfile"]) == DOCKERFILE
        assert build["target"] in made


def test_secrets_are_asked_for_and_never_written_here():
    """A file without them refuses to start, with a word on what is missing."""
    text = (FOLDER / "compose.yaml").read_text() + (FOLDER / "redis.yaml").read_text()
    for name in ("PENSTOCK_API_KEY", "PENSTOCK_WORKER_TOKEN", "PENSTOCK_REDIS"):
        assert re.search(rf"{name}: \$\{{{name}:\?[^}}]+\}}", text), name
    assert "/deploy/compose/secrets/" in (ROOT / ".gitignore").read_text().splitlines()
