"""Engines that batch by themselves are opened from a file, and what is wrong in it is named."""

import json

import pytest
import yaml

from engines.errors import ModelRejected
from gateway.opening import load_engine
from gateway.settings import Settings
from tests.support.engines import ask, read
from tests.support.live import MODEL, TOKENIZER_DIR, live, test_settings

pytestmark = pytest.mark.anyio


def ignore(_):
    """Neither phases nor deaths are looked at here."""


def opened(tmp_path, engine, values):
    file = tmp_path / "engine.yaml"
    file.write_text(values if isinstance(values, str) else yaml.safe_dump(values))
    settings = Settings(engine=engine, engine_config=file, model_dir=TOKENIZER_DIR)
    return load_engine(settings, ignore, ignore)


async def test_an_upstream_is_served_with_the_sizes_that_it_tells(tmp_path):
    """Text side and vocabulary from MODEL_DIR, the context from the upstream."""
    with live(test_settings()) as server:
        loaded = opened(tmp_path, "upstream", {"base_url": server.url, "kind": "penstock"})
        await loaded.engine.start()
        sizes = loaded.sizes()
        config = json.loads((TOKENIZER_DIR / "config.json").read_text())
        assert loaded.engine.info.model == MODEL
        assert (sizes.limits.max_context, sizes.limits.vocab_size) == (2048, config["vocab_size"])
        assert not sizes.grammars
        answer = await read(loaded.engine.generate(ask("a", [300, 301, 302], max_tokens=5)))
        assert len(answer[0].tokens) == 5
        await loaded.engine.stop(1)


@pytest.mark.parametrize(
    ("engine", "values", "words"),
    [
        ("upstream", "- a\n", "must be a mapping"),
        ("upstream", "{", "is not YAML"),
        ("upstream", {"base_url": "http://h/v1", "kind": "oracle"}, "kind must be one of"),
        ("upstream", {"base_url": "http://h/v1", "kind": "vllm", "key": 1}, "unknown key 'key'"),
        ("upstream", {"base_url": "http://h/v1", "api_key": "x"}, "unknown key 'api_key'"),
        ("upstream", {"base_url": "ftp://h", "kind": "vllm"}, "an upstream's URL"),
        ("upstream", {"kind": "vllm"}, "base_url"),
        ("upstream", {"base_url": "http://h/v1", "api_key_file": "/none"}, "cannot be read"),
        ("smg", {}, "address is missing"),
        ("smg", {"address": "h:1", "blocks": 1}, "unknown key 'blocks'"),
        ("smg", {"address": "h:1", "tls": "x"}, "tls must name"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path, engine, values, words):
    """Before anything is connected to."""
    with pytest.raises(ModelRejected, match=words):
        opened(tmp_path, engine, values)


def test_a_missing_file_is_named(tmp_path):
    """As the flag that is missing is."""
    settings = Settings(engine="upstream", engine_config=tmp_path / "none")
    with pytest.raises(ModelRejected, match="--engine-config cannot be read"):
        load_engine(settings, ignore, ignore)
    with pytest.raises(ModelRejected, match="needs --engine-config"):
        load_engine(Settings(engine="smg"), ignore, ignore)
    with pytest.raises(ModelRejected, match="--engine vllm needs --engine-config"):
        load_engine(Settings(engine="vllm"), ignore, ignore)
