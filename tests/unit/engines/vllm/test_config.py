"""The YAML of a vLLM engine: our defaults, and refusals that name what is wrong."""

import sys

import pytest
import yaml

from engines.errors import EngineUnavailable, ModelRejected
from engines.vllm.config import read_config
from engines.vllm.features import read_features
from engines.vllm.opening import _ENVIRONMENT, _LOGS, _import, open_vllm
from tests.support.vllm import END, model_directory
from tests.support.vllm_facts import facts
from tests.support.vllm_standin import installed


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """What an engine writes there is taken back."""
    for name in (*_ENVIRONMENT, *_LOGS[:1]):
        monkeypatch.setenv(name, "1")


@pytest.fixture
def vllm():
    """The stand-in is installed."""
    with installed() as recorder:
        yield recorder


@pytest.fixture
def read(vllm, tmp_path):
    """Reads a YAML of these values, over a model directory."""
    features = read_features(_import())

    def read(*, text=False, **given):
        model = model_directory(tmp_path / "m", tokenizer=text)
        return read_config(yaml.safe_dump({"model": str(model), **given}), features)

    return read


def test_our_defaults(read):
    """The cache is used, order is ours, weights hold no code, and no text is needed."""
    config = read()
    assert {key: value for key, value in config.arguments.items() if key != "model"} == {
        "enable_chunked_prefill": True,
        "enable_prefix_caching": True,
        "scheduling_policy": "priority",
        "load_format": "safetensors",
        "trust_remote_code": False,
        "disable_log_stats": False,
        "enable_log_requests": False,
        "skip_tokenizer_init": True,
    }
    assert (config.name, config.by_priority, config.tells_stats) == ("m", True, True)
    assert not config.takes_grammars
    assert config.arguments.keys() <= set(facts()["AsyncEngineArgs"])


def test_a_tokenizer_is_for_grammars(read):
    """It is loaded where there is one, unless that is not wanted."""
    config = read(text=True)
    assert config.arguments["structured_outputs_config"] == {"backend": "guidance"}
    assert config.arguments["skip_tokenizer_init"] is False
    assert config.takes_grammars
    assert not read(text=True, skip_tokenizer_init=True).takes_grammars
    other = read(text=True, structured_outputs_config={"backend": "xgrammar"})
    assert not other.takes_grammars


def test_what_is_written_wins_over_our_defaults(read):
    """A default is only where nothing is said."""
    config = read(
        enable_prefix_caching=False, scheduling_policy="fcfs", disable_log_stats=True,
        penstock={"name": "mine", "ageing_s": 1},
    )  # fmt: skip
    assert config.arguments["enable_prefix_caching"] is False
    assert (config.by_priority, config.tells_stats) == (False, False)
    assert (config.name, config.own.ageing_s) == ("mine", 1)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"max_num_seq": 4}, "unknown in AsyncEngineArgs: max_num_seq"),
        ({"penstock": {"nom": "x"}}, "unknown in penstock: nom"),
        ({"penstock": [1]}, "penstock must be a mapping"),
        ({"penstock": {"ageing_s": "5"}}, "ageing_s must be seconds"),
        ({"penstock": {"name": 3}}, "name must be a text"),
        ({"model": None}, "lacks model"),
        ({"model": "meta-llama/L"}, "model is no directory with a config.json here.*-llama/L"),
        ({"tokenizer": "gpt2"}, "tokenizer is no directory here"),
        ({"trust_remote_code": True}, "trust_remote_code is True, may be False"),
        ({"load_format": "pt"}, "load_format is 'pt', may be safetensors"),
        ({"load_format": "auto"}, "other formats may hold code"),
        ({"distributed_executor_backend": "mine.Executor"}, "imported as code"),
        ({"logprobs_mode": "processed_logits"}, "the model's own"),
        ({"data_parallel_size": 2}, "run a worker for each"),
        ({"runner": "pooling"}, "this engine generates"),
        ({"served_model_name": "x"}, r"it is penstock\.name"),
        ({"hf_token": "x"}, "hf_token is not taken: nothing is downloaded"),
        ({"kv_transfer_config": {"kv_connector_module_path": "x"}}, "names a module"),
        *(
            ({key: "x"}, f"{key} is not taken: it names code")
            for key in (
                "code_revision", "io_processor_plugin", "log_config_file", "logging_config",
                "logits_processors", "model_class_overrides", "reasoning_parser_plugin",
                "scheduler_cls", "worker_cls", "worker_extension_cls",
            )
        ),
    ],
)  # fmt: skip
def test_a_refusal_names_what_is_wrong(read, given, words):
    """Unknown keys, code, downloads, and what would break the contract."""
    with pytest.raises(ModelRejected, match=words):
        read(**given)


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", ""])
def test_what_is_no_mapping_is_refused(vllm, text):
    """With a word about it, and no traceback of YAML's."""
    with pytest.raises(ModelRejected, match="configuration"):
        read_config(text, read_features(_import()))


def test_without_vllm_the_refusal_says_so():
    """The gateway's own environment never has it."""
    with pytest.raises(ModelRejected, match="vLLM cannot be imported"):
        open_vllm("model: /m")


def test_a_version_without_what_is_called_is_refused_by_its_name(vllm, monkeypatch):
    """Another vLLM may have moved it."""
    monkeypatch.delattr(sys.modules["vllm.inputs"], "tokens_input")
    with pytest.raises(ModelRejected, match=r"has no vllm\.inputs\.tokens_input"):
        open_vllm("model: /m")


def test_it_opens_with_what_vllm_tells_of_itself(vllm, tmp_path):
    """Sizes from its configuration, less the block it keeps; nested sections as its own kinds."""
    model = model_directory(tmp_path / "m", tokenizer=True)
    given = {"model": str(model), "max_num_seqs": 3, "max_model_len": 64, "block_size": 16}
    text = yaml.safe_dump({**given, "num_gpu_blocks_override": 9})
    engine = open_vllm(text, ends=frozenset({7}))
    try:
        info = engine.info
        assert (info.model, info.max_context, info.vocab_size) == ("m", 64, 500)
        assert (info.block_size, info.num_blocks, info.max_running) == (16, 8, 3)
        assert engine.ends == {7, END}
    finally:
        engine._calls.shutdown()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("no such dtype"), ModelRejected),
        (RuntimeError("Engine core initialization failed"), EngineUnavailable),
    ],
)
def test_what_vllm_says_of_a_failed_start_is_told(vllm, tmp_path, monkeypatch, error, kind):
    """A wrong value is the operator's; processes that do not come up may do so again."""

    def opened(**_):
        raise error

    monkeypatch.setattr(_import().engine.AsyncLLM, "from_engine_args", staticmethod(opened))
    monkeypatch.setattr("engines.vllm.opening.read_features", lambda _: _features())
    with pytest.raises(kind, match=str(error)):
        open_vllm(yaml.safe_dump({"model": str(model_directory(tmp_path / "m"))}))


def _features():
    with installed():
        return read_features(_import())
