"""Every snippet of docs/anthropic.md, run in order against the bundled model; and its tables."""

import re
from dataclasses import replace
from pathlib import Path

import anthropic
import pytest

from engines.bundled import penstock_tiny
from gateway.opening import open_engine
from openai_compat.anthropic import schema
from openai_compat.anthropic.errors import error_object
from openai_compat.errors import ErrorReply
from tests.support.live import live, test_settings

PAGE = (Path(__file__).parents[2] / "docs" / "anthropic.md").read_text()
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
ADDRESS = "http://127.0.0.1:8000"
ROWS = re.findall(r"^\| ([\d, ]+) \| `(\w+)`", PAGE, re.MULTILINE)
BUNDLED = (penstock_tiny() / "model.safetensors").exists()


def test_the_snippets_of_the_page_run(capsys):
    """In one session, as a reader would; each leaves what its words promise."""
    if not BUNDLED:
        pytest.skip("no bundled weights here")
    assert len(SNIPPETS) == PAGE.count("```") // 2 == 5
    settings = replace(test_settings(max_running=8), served_model_name=("penstock-tiny",))
    with live(settings, opener=open_engine) as server:
        names = {}
        for snippet in SNIPPETS:
            exec(snippet.replace(ADDRESS, server.url.removesuffix("/v1")), names)
    assert names["message"].stop_reason == "end_turn"
    assert names["call"].name == "get_weather"
    assert set(names["call"].input) == {"city"}
    assert isinstance(names["reply"], anthropic.types.Message)
    assert names["final"].content[0].text
    assert names["counted"].input_tokens > 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("max_tokens req-")


def test_every_field_is_on_the_page():
    """Those that work, and those that are refused."""
    hidden = {"billing_policy", "fallback_credit_token"}  # of betas that few have seen
    assert not [name for name in schema.KNOWN - hidden if f"`{name}" not in PAGE]


@pytest.mark.parametrize(("statuses", "kind"), ROWS)
def test_the_table_of_errors_is_true(statuses, kind):
    """Row by row."""
    assert len(ROWS) == 9
    for status in statuses.split(", "):
        assert error_object(ErrorReply(int(status), "", "code", ""))["type"] == kind
