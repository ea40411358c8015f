"""Whatever finishes is valid: random schemas and tool sets on the bundled model, temperature 1.

A sample; `python -m benchmarks.validity` asks a thousand schemas and two hundred tool sets.
"""

import asyncio

import pytest

from engines.bundled import penstock_tiny
from gateway.opening import open_engine
from tests.support.live import MODEL, live, test_settings
from tests.support.validity import judged, schema_cases, tool_cases

pytestmark = pytest.mark.skipif(
    not (penstock_tiny() / "model.safetensors").exists(), reason="no bundled weights here"
)


@pytest.fixture(scope="module")
def server():
    with live(test_settings(max_running=24, max_step_tokens=256), opener=open_engine) as server:
        yield server


@pytest.mark.parametrize(
    ("cases", "least"),
    [
        pytest.param(lambda: schema_cases(20, seed=1), 14, id="schemas"),
        pytest.param(lambda: tool_cases(18, seed=1), 9, id="tools"),
    ],
)
def test_what_finishes_is_valid(server, cases, least):
    """By jsonschema, which knows nothing of grammars; and enough of them do finish."""
    report = asyncio.run(judged(server.url, MODEL, cases()))
    assert report.wrong == []
    assert report.of("valid") >= least
