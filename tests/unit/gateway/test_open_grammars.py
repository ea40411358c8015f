"""An opened engine takes grammars where its tokenizer allows it, and says so truthfully."""

import logging

import pytest

from engines.api import Capability
from gateway.opening import open_engine
from gateway.settings import Settings
from tests.support.tokenizers import EOS, byte_level, word_pieces, write_model_dir


@pytest.mark.parametrize(
    ("backend", "named", "takes"),
    [
        (byte_level(), {"eos_token": EOS}, True),
        (byte_level(), {}, False),
        (word_pieces(), {"eos_token": "a"}, False),
    ],
    ids=["byte-level", "without-an-end", "word-pieces"],
)
def test_grammars_are_offered_where_tokens_are_bytes_and_there_is_an_end(
    tmp_path, caplog, backend, named, takes
):
    """Else the capability, and the checker, are not there, and the log says why."""
    path = write_model_dir(tmp_path / "model", backend, **named)
    settings = Settings(engine="ledger", model_dir=path, kv_cache_memory=1 << 20)
    with caplog.at_level(logging.WARNING):
        opened = open_engine(settings, lambda _: None, lambda _: None)
    can = opened.engine.info.capabilities
    assert (Capability.GRAMMAR in can, opened.checker is not None) == (takes, takes)
    assert Capability.GUIDES in can
    assert ("takes no grammars" in caplog.text) != takes
