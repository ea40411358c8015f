"""The other files of deploy/, each held to the tool that reads it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.deploy.manifests import BASE, base
from tests.deploy.rendering import CHART, DEPLOY, ROOT, VERSIONS, Objects, loaded, validate

TOOLS = Path(sys.executable).parent
OVERLAY = DEPLOY / "kustomize" / "overlays" / "example"
PROMTOOL = shutil.which("promtool", path=f"{TOOLS}:/usr/bin:/usr/local/bin")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="no promtool here; Debian's package prometheus has it"
)


def run(*command, cwd=ROOT, **more):
    environment = {"PATH": f"{TOOLS}:{os.defpath}", **more}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_base_is_what_the_chart_renders():
    """`make manifests` writes it again."""
    assert BASE.read_text() == base()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("folder", [BASE.parent, OVERLAY], ids=["base", "overlay"])
def test_kustomize_builds_what_kubernetes_takes(folder, version):
    """Of two versions, strictly."""
    made = loaded(run("kubectl", "kustomize", folder))
    assert len(made) == len(loaded(BASE.read_text()))
    validate(made, version)


def test_an_overlay_changes_what_it_says():
    """Namespace, images, number of gateways, and a model of one's own."""
    made = Objects(loaded(run("kubectl", "kustomize", OVERLAY)))
    assert {each["metadata"]["namespace"] for each in made} == {"llm"}
    for owner, pod, _ in made.pods():
        (container,) = pod["containers"]
        assert container["image"].startswith("registry.example.com/penstock-")
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts["models"] == "/models", owner["kind"]
        assert "models" in {volume["name"] for volume in pod["volumes"]}
    assert made.one("Deployment", "penstock-gateway")["spec"]["replicas"] == 3
    settings = made.one("ConfigMap", "penstock")["data"]["penstock.yaml"]
    assert yaml.safe_load(settings)["model_dir"].startswith("/models/")


@pytest.mark.parametrize("files", [["compose.yaml"], ["compose.yaml", "redis.yaml"]], ids=len)
def test_compose_reads_its_files(files):
    """Every reference is there, and the two files merge."""
    given = [word for file in files for word in ("--file", file)]
    text = run(
        "docker-compose", *given, "config", "--format", "json",
        cwd=DEPLOY / "compose", PENSTOCK_API_KEY="sk-1", PENSTOCK_WORKER_TOKEN="0123456789abcdef",
        PENSTOCK_REDIS="redis://penstock:p@redis:6379",
        REDIS_DEPLOY="redis://penstock-deploy:p@redis:6379",
    )  # fmt: skip
    services = json.loads(text)["services"]
    for name in ("gateway-1", "gateway-2", "worker-1", "worker-2"):
        told = services[name]["environment"]
        assert told["PENSTOCK_WORKER_TOKEN"] == "0123456789abcdef"
        assert ("PENSTOCK_REDIS" in told) is ("redis.yaml" in files)
        assert told["PENSTOCK_MODEL_DIR"] is None  # unset, not empty: that would be refused
        waits = set(services[name]["depends_on"])
        assert waits == {"certificates"} | ({"redis-setup"} if "redis.yaml" in files else set())


def test_compose_refuses_to_start_without_secrets():
    """With a word on which."""
    done = subprocess.run(
        [TOOLS / "docker-compose", "config"],
        cwd=DEPLOY / "compose", env={}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert re.search(r"PENSTOCK_(API_KEY|WORKER_TOKEN)", done.stderr)


def test_the_linter_of_dockerfiles_has_nothing_to_say():
    """Of both files; NVIDIA's container brings its own user and pip."""
    run("hadolint", DEPLOY / "Dockerfile")


def test_yaml_is_tidy():
    """No key twice, no trailing space, one way to indent; templates are no YAML."""
    rules = "{extends: default, rules: {document-start: disable, line-length: {max: 140}, "
    rules += "comments: {min-spaces-from-content: 1}, braces: {max-spaces-inside: 0}}}"
    files = [
        path for path in DEPLOY.rglob("*.yaml") if "templates" not in path.parts and path != BASE
    ]
    assert len(files) > 8
    run("yamllint", "--strict", "-d", rules, *files)


@needs_promtool
def test_alerts_fire_when_they_should_and_only_then():
    """Series made up for each, in alerts.test.yaml; every alert has its case."""
    run(PROMTOOL, "check", "rules", CHART / "files" / "alerts.yaml")
    cases = ROOT / "tests" / "deploy" / "alerts.test.yaml"
    run(PROMTOOL, "test", "rules", cases)
    rules = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"]
    named = {rule["alert"] for group in rules for rule in group["rules"]}
    tests = yaml.safe_load(cases.read_text())["tests"]
    fired, quiet = set(), set()
    for test in tests:
        for case in test["alert_rule_test"]:
            (fired if case["exp_alerts"] else quiet).add(case["alertname"])
    assert fired == quiet == named


@needs_promtool
def test_every_query_can_be_read(tmp_path):
    """Of the dashboard and of the adapter, with their placeholders filled."""
    board = json.loads((CHART / "files" / "dashboard.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    adapter = yaml.safe_load((CHART / "files" / "adapter.yaml").read_text())
    for rule in adapter["rules"]["external"]:
        queries += [rule["seriesQuery"], rule["metricsQuery"]]
    filled = [
        query.replace("$__rate_interval", "5m")
        .replace("$job", ".*")
        .replace("<<.Series>>", "penstock_tokens_in_flight")
        .replace("<<.LabelMatchers>>", 'namespace="penstock"')
        for query in queries
    ]
    rules = [{"record": f"q:{index}", "expr": query} for index, query in enumerate(filled)]
    written = tmp_path / "queries.yaml"
    written.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    assert len(rules) > 25
    run(PROMTOOL, "check", "rules", written)
