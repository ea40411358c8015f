"""The YAML of a TensorRT-LLM engine: our defaults, and refusals that name what is wrong."""

from dataclasses import replace
from importlib import import_module

import pytest
import yaml

from engines.errors import ModelRejected
from engines.self_batching.model_facts import read_model_facts
from engines.trtllm.config import read_config
from engines.trtllm.disaggregated import DISAGGREGATED
from engines.trtllm.features import read_features
from engines.trtllm.opening import open_trtllm
from engines.trtllm.retention import RETENTION
from tests.support.trtllm import model_directory, settings
from tests.support.trtllm_standin.facts import VERSIONS
from tests.support.trtllm_standin.package import installed

OLD, _, NEW = VERSIONS


def features(version):
    with installed(version):
        return read_features(import_module("tensorrt_llm"), import_module("tensorrt_llm.llmapi"))


def read(version=NEW, **given):
    return read_config(
        yaml.safe_dump({"model": "/m", "max_seq_len": 64, **given}), features(version)
    )


def test_our_defaults_are_set_where_the_version_has_them():
    """Chunked prefill, block reuse and events on; telemetry off; the queue by priority."""
    arguments = read(NEW).arguments
    assert arguments["enable_chunked_prefill"] is True
    assert arguments["num_postprocess_workers"] == 0
    assert arguments["telemetry_config"] == {"disabled": True}
    assert arguments["kv_cache_config"] == {
        "enable_block_reuse": True,
        "event_buffer_max_size": 100_000,
    }
    assert arguments["scheduler_config"] == {"waiting_queue_policy": "PRIORITY"}
    old = read(OLD).arguments
    assert "telemetry_config" not in old
    assert old["scheduler_config"] == {}


def test_what_is_written_wins_over_our_defaults():
    """A default is only where nothing is said."""
    config = read(
        enable_chunked_prefill=False,
        kv_cache_config={"event_buffer_max_size": 0, "tokens_per_block": 16, "max_tokens": 160},
        scheduler_config={"waiting_queue_policy": "fcfs"},
        max_batch_size=4,
    )
    assert config.arguments["enable_chunked_prefill"] is False
    assert config.arguments["scheduler_config"]["waiting_queue_policy"] == "fcfs"
    assert not config.tells_events
    assert (config.block_size, config.num_blocks, config.max_running) == (16, 10, 4)


def test_the_tokenizer_is_loaded_only_for_grammars():
    """Tokens go in and out; llguidance is what must know how they are written."""
    assert read().arguments["skip_tokenizer_init"] is True
    guided = read(guided_decoding_backend="llguidance")
    assert guided.arguments["skip_tokenizer_init"] is False
    assert guided.takes_grammars
    assert not read(guided_decoding_backend="xgrammar").takes_grammars


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"max_batchsize": 4}, "unknown in LlmArgs: max_batchsize"),
        ({"kv_cache_config": {"tokens": 4}}, "unknown in kv_cache_config: tokens"),
        ({"scheduler_config": {"x": 4}}, "unknown in scheduler_config: x"),
        ({"penstock": {"nom": "x"}}, "unknown in penstock: nom"),
        ({"penstock": {"sampler_applies": ["luck"]}}, "sampler_applies: luck"),
        ({"penstock": [1]}, "penstock must be a mapping"),
        ({"max_seq_len": None}, "lacks max_seq_len"),
    ],
)
def test_a_refusal_names_what_is_wrong(given, words):
    """Unknown keys, wrong kinds and what is missing."""
    with pytest.raises(ModelRejected, match=words):
        read(**given)


@pytest.mark.parametrize("version", VERSIONS)
def test_extras_are_offered_where_they_can_have_an_effect(version):
    """By what is installed and by what is configured; never by a version's number."""
    has = features(version)
    transfers = {"cache_transceiver_config": {"backend": "UCX"}}
    assert read(version).extras(has) == {RETENTION}
    assert read(version, **transfers).extras(has) == {RETENTION, DISAGGREGATED}
    unused = read(version, kv_cache_config={"enable_block_reuse": False}, **transfers)
    assert unused.extras(has) == {DISAGGREGATED}
    lacking = replace(has, retention=False, phases=frozenset())
    assert read(version, **transfers).extras(lacking) == frozenset()


def test_adapters_are_refused_where_the_version_has_none(tmp_path):
    """Before anything is loaded."""
    given = {
        "model": "/m", "max_seq_len": 64, "lora_config": {"lora_dir": [str(tmp_path)]},
        "penstock": {"adapters": {"poet": str(tmp_path)}, "context_hosts": ["10.0.0.7"]},
    }  # fmt: skip
    text, has = yaml.safe_dump(given), features(NEW)
    own = read_config(text, has).own
    assert (own.adapters, own.context_hosts) == ({"poet": str(tmp_path)}, {"10.0.0.7"})
    with pytest.raises(ModelRejected, match="takes no LoRA adapters"):
        read_config(text, replace(has, adapters=False))


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", ""])
def test_what_is_no_mapping_is_refused(text):
    """With a word about it, and no traceback of YAML's."""
    with pytest.raises(ModelRejected, match="configuration"):
        read_config(text, features(NEW))


def test_a_version_that_lacks_a_key_refuses_it():
    """Names are looked up in what is installed."""
    with pytest.raises(ModelRejected, match="telemetry_config"):
        read(OLD, telemetry_config={"disabled": True})


def test_without_tensorrt_llm_the_refusal_says_where_to_run():
    """The gateway's own environment never has it."""
    with pytest.raises(ModelRejected, match="container"):
        open_trtllm("model: /m")


def test_a_model_that_does_not_tell_its_vocabulary_is_refused(tmp_path):
    """It can be given; ends are read from generation_config.json first."""
    with pytest.raises(ModelRejected, match=r"penstock\.vocab_size"):
        read_model_facts(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 9]}')
    (tmp_path / "config.json").write_text('{"text_config": {"vocab_size": 30, "eos_token_id": 1}}')
    facts = read_model_facts(tmp_path)
    assert (facts.vocab_size, facts.ends) == (30, {7, 9})
    assert read_model_facts(tmp_path, 40).vocab_size == 40


def test_what_the_engine_says_of_itself(tmp_path):
    """Sizes from the file, the name from `penstock`."""
    model = model_directory(tmp_path / "m")
    with installed(NEW):
        info = open_trtllm(yaml.safe_dump(settings(model))).info
    assert (info.model, info.max_context, info.vocab_size) == ("test", 128, 500)
    assert (info.block_size, info.num_blocks, info.max_running) == (4, 200, 8)
