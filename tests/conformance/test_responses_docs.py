"""Every snippet of docs/responses.md, run in order against the bundled model; and its tables."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from engines.bundled import penstock_tiny
from gateway.model_syntax import AUTO
from gateway.opening import open_engine
from openai_compat.responses import schema
from tests.support.live import live, test_settings
from tests.support.routes import api_routes

PAGE = (Path(__file__).parents[2] / "docs" / "responses.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
BUNDLED = (penstock_tiny() / "model.safetensors").exists()


def test_the_snippets_of_the_page_run(capsys):
    """In one session, as a reader would; each leaves what its words promise."""
    if not BUNDLED:
        pytest.skip("no bundled weights here")
    settings = test_settings(max_running=8, tool_parser=AUTO)
    with live(
        replace(settings, served_model_name=("penstock-tiny",)), opener=open_engine
    ) as server:
        names = {}
        for snippet in SNIPPETS:
            exec(snippet.replace("http://127.0.0.1:8000/v1", server.url), names)
        names["client"].close()
    assert names["first"].status == "completed"
    assert [item.role for item in names["items"]] == ["user", "assistant", "user"]
    assert names["items"][1].content[0].text == names["first"].output_text
    assert names["again"].output_text
    assert names["call"].name == "get_weather"
    assert names["told"].status == "completed"
    assert names["final"].output_text
    said = capsys.readouterr().out.splitlines()
    assert said[-2].endswith("6")
    assert said[-1] == "cancelled"


def test_every_route_is_on_the_page():
    """And every field of OpenAI's."""
    for route in api_routes():
        if route.path.startswith("/v1/responses"):
            assert f"`{route.method} {route.path.replace('response_id', 'id')}`" in PAGE
    theirs = schema.KNOWN - schema.SAMPLING_FIELDS - schema.ENGINE_EXTENSIONS.keys()
    openai = {name for name in theirs if name not in CHAT_OR_OURS}
    assert not [name for name in openai | {"temperature", "top_p"} if f"`{name}" not in PAGE]


CHAT_OR_OURS = schema._ELSEWHERE | {
    "add_special_tokens", "cache_salt", "chat_template", "chat_template_kwargs", "echo",
    "continue_final_message", "include_stop_str_in_output", "personality", "prompt_logprobs",
    "return_token_ids", "skip_special_tokens", "truncate_prompt_tokens",
}  # fmt: skip
