"""Every example of docs/structured-output.md runs as it stands, in order."""

import re
from pathlib import Path

import pytest

from engines.bundled import penstock_tiny
from gateway.model_syntax import AUTO
from gateway.opening import open_engine
from tests.support.live import live, test_settings

DOC = Path(__file__).parents[2] / "docs" / "structured-output.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)

pytestmark = pytest.mark.skipif(
    not (penstock_tiny() / "model.safetensors").exists(), reason="no bundled weights here"
)


def test_every_example_runs(capsys):
    """One after the other, in one namespace; the address is the server's, and answers are short."""
    settings = test_settings(model_dir=None, tool_parser=AUTO, max_context=640)
    names = {"__name__": "example"}
    assert len(EXAMPLES) >= 10
    with live(settings, opener=open_engine) as server:
        for example in EXAMPLES:
            told = example.replace("http://127.0.0.1:8000/v1", server.url)
            exec(told.replace('"penstock-tiny"', '"ledger"'), names)
        names["client"].close()
    assert "get_weather" in capsys.readouterr().out
