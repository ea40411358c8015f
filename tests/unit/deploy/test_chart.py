"""The chart says what the product takes and tells: settings, metrics, versions, runbooks."""

import json
import re
import tomllib

import pytest
import yaml

from gateway.config import ConfigError, check_gateway, check_worker, read_settings
from gateway.exchange import Outcome
from gateway.settings import setting_fields
from tests.support.chart_schema import MADE_BY_THE_CHART, SCHEMA, written
from tests.support.deploy_files import (
    CHART,
    DEPLOY,
    EXPECTED,
    ROOT,
    documents,
    metric_names,
    named_metrics,
)

BASE = documents(DEPLOY / "kustomize" / "base" / "penstock.yaml")
FILES = CHART / "files"
ALERTS = yaml.safe_load((FILES / "alerts.yaml").read_text())
BOARD = json.loads((FILES / "dashboard.json").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
FROM_SECRETS = {"PENSTOCK_API_KEY": "sk-of-a-client", "PENSTOCK_WORKER_TOKEN": "0123456789abcdef"}


def test_the_schema_takes_the_settings_that_there_are():
    """`make manifests` writes it; what the chart gives itself cannot be given twice."""
    assert SCHEMA.read_text() == written(), "run `make manifests`"
    taken = json.loads(written())["properties"]["settings"]["properties"]
    names = {each.name for each in setting_fields()}
    assert set(taken) == names - MADE_BY_THE_CHART
    to_come = {name.removeprefix("PENSTOCK_").lower() for name in EXPECTED}
    assert names | to_come >= MADE_BY_THE_CHART


def test_the_chart_has_the_version_of_the_product():
    """Its own, and that of the images it asks for."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert chart["version"] == chart["appVersion"] == project["version"]


def environment(kind, folder):
    """The command of a part of the base and its settings, the files of its pod in a folder."""
    (made,) = [each for each in BASE if each["kind"] == kind]
    (container,) = made["spec"]["template"]["spec"]["containers"]
    given = {}
    for entry in container["env"]:
        name = entry["name"]
        value = entry["value"] if "value" in entry else FROM_SECRETS.get(name, "penstock")
        given[name] = value.replace("$(POD_NAMESPACE)", given.get("POD_NAMESPACE", ""))
    kept = {key: given[key].replace("/etc/penstock", str(folder)) for key in given}
    return container["args"], kept


@pytest.fixture
def mounted(tmp_path):
    """What the pods of the base find in /etc/penstock."""
    (config,) = [each for each in BASE if each["kind"] == "ConfigMap"]
    (tmp_path / "penstock.yaml").write_text(config["data"]["penstock.yaml"])
    (tmp_path / "tls").mkdir()
    for name in ("tls.crt", "tls.key", "ca.crt"):
        (tmp_path / "tls" / name).write_text("here")
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "command", "check"),
    [("Deployment", "gateway", check_gateway), ("StatefulSet", "worker", check_worker)],
)
def test_a_pod_of_the_base_starts_with_settings_that_hold(mounted, kind, command, check):
    """All are read and agree, as the process itself would judge them."""
    args, given = environment(kind, mounted)
    assert args == [command]
    settings = read_settings({}, environ=given)
    check(settings)
    assert settings.drain_timeout_s == 30
    if command == "gateway":
        assert settings.worker == tuple(
            f"penstock-worker-{n}.penstock-worker.penstock.svc:8010" for n in (0, 1)
        )
    del given["PENSTOCK_WORKER_CA"]
    with pytest.raises(ConfigError, match="given together"):
        check(read_settings({}, environ=given))


def test_every_metric_that_is_asked_for_is_told():
    """By alerts and their tests, by the dashboard, the adapter and the chart."""
    texts = {path: path.read_text() for path in FILES.iterdir()}
    texts |= {path: path.read_text() for path in (CHART / "templates").iterdir()}
    cases = ROOT / "tests" / "deploy" / "alerts.test.yaml"
    texts[cases] = cases.read_text()
    named = {name for text in texts.values() for name in named_metrics(text)}
    assert len(named) > 20
    assert not named - metric_names()


def test_every_alert_has_a_page_to_read():
    """A heading of docs/deploy.md, which the alert names."""
    page = (ROOT / "docs" / "deploy.md").read_text()
    headings = {line.lstrip("# ") for line in page.splitlines() if line.startswith("#")}
    assert len(RULES) == len({rule["alert"] for rule in RULES})
    for rule in RULES:
        assert rule["alert"] in headings
        assert rule["annotations"]["runbook"] == f"docs/deploy.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in {"critical", "warning"}


def test_the_dashboard_is_laid_out_without_overlap():
    """Each panel has an id, a title, a query and a place of its own."""
    taken, ids = set(), set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not taken & cells, panel["title"]
        taken |= cells
        ids.add(panel["id"])
        assert panel["title"]
        assert all(target["expr"] for target in panel["targets"])
    assert len(ids) == len(BOARD["panels"])


def test_the_causes_that_alerts_choose_by_exist():
    """A label that nothing has would keep an alert silent for ever."""
    causes = set(re.findall(r'cause=~"([^"]+)"', (FILES / "alerts.yaml").read_text()))
    assert causes
    for cause in causes:
        assert set(cause.split("|")) <= {each.value for each in Outcome}
