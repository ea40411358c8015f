"""The settings that the chart takes, as its schema: `python -m tests.support.chart_schema` writes.

A setting that the chart makes itself of another value is not among them, so none is given twice.
"""

import json

from gateway.settings import setting_fields
from tests.support.deploy_files import CHART

SCHEMA = CHART / "values.schema.json"
# Settings that the templates give, or that have no place in a pod.
MADE_BY_THE_CHART = frozenset(
    {
        "advertise",
        "api_key",
        "api_key_file",
        "drain_timeout_s",
        "host",
        "listen",
        "metrics_public",
        "model_dir",
    }
    | {
        "port",
        "redis",
        "replicas",
        "worker",
        "worker_ca",
        "worker_cert",
        "worker_key",
        "worker_token",
    }
)


def settings_schema():
    """What `settings` of the values may hold."""
    taken = [each for each in setting_fields() if each.name not in MADE_BY_THE_CHART]
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {each.name: _of(each.default, each.metadata["kind"]) for each in taken},
    }


def _of(default, kind):
    if kind.many:
        return {"type": "array", "items": {"type": "string"}}
    if isinstance(default, bool):
        return {"type": "boolean"}
    if kind.metavar == "SIZE":
        return {"type": ["integer", "string"]}
    if isinstance(default, int | float):
        return {"type": "integer" if isinstance(default, int) else "number"}
    return {"enum": kind.metavar.split("|")} if "|" in kind.metavar else {"type": "string"}


def written():
    """The whole schema, with the settings that there are now."""
    schema = json.loads(SCHEMA.read_text())
    schema["properties"]["settings"] = settings_schema()
    return json.dumps(schema, indent=1) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(written())
