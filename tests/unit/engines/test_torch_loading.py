"""What a model directory must be: everything else is refused with its name."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from engines.errors import ModelRejected
from engines.torch.families import FAMILIES, read_facts
from engines.torch.loading import open_model
from tests.support.tiny_models import by_name, model_dir


@pytest.fixture
def directory(tmp_path):
    """A private copy of a good model."""
    return shutil.copytree(model_dir(by_name("llama")), tmp_path / "model")


def configure(path, **changes):
    """Change config.json; None removes a key."""
    file = path / "config.json"
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def refused(path, match):
    with pytest.raises(ModelRejected, match=match):
        open_model(path)


def test_facts_are_read_from_the_config(directory):
    """Every figure the engine sizes itself by."""
    configure(directory, head_dim=48, eos_token_id=[2, 7], max_position_embeddings=777)
    (directory / "generation_config.json").unlink(missing_ok=True)
    facts = read_facts(directory)
    assert facts.family == "llama"
    assert (facts.layers, facts.kv_heads, facts.head_dim) == (2, 2, 48)
    assert (facts.vocab_size, facts.max_context, facts.eos_ids) == (512, 777, (2, 7))
    assert facts.dtype == "float32"
    assert facts.kv_bytes_per_token("float32") == 2 * 2 * 2 * 48 * 4
    assert facts.kv_bytes_per_token("bfloat16") == 2 * 2 * 2 * 48 * 2


def test_generation_config_names_the_end_tokens(directory):
    """Chat models list their end-of-turn token there, and it wins."""
    (directory / "generation_config.json").write_text('{"eos_token_id": [5, 6]}')
    assert read_facts(directory).eos_ids == (5, 6)


@pytest.mark.parametrize("rope_type", ["dynamic", "longrope"])
def test_context_ends_where_frequencies_would_change_with_length(directory, rope_type):
    """Beyond the original length a token would depend on the longest row of its batch."""
    rope = {
        "rope_type": rope_type,
        "rope_theta": 10000.0,
        "factor": 4.0,
        "short_factor": [1.0] * 8,
        "long_factor": [2.0] * 8,
        "original_max_position_embeddings": 128,
    }
    configure(directory, rope_parameters=rope)
    assert read_facts(directory).max_context == 128


def test_a_directory_without_config_is_refused(tmp_path):
    """Named as not a model directory."""
    refused(tmp_path, r"no config\.json in .*not a model directory")


@pytest.mark.parametrize(
    "text", ["{", "[1]", "\ufffd", "[" * 100_000, '{"model_type": "llama", "hidden_size": "x"}']
)
def test_an_invalid_config_is_refused(directory, text):
    """Whatever is wrong with it, it is config.json that is named."""
    (directory / "config.json").write_text(text)
    refused(directory, r"config\.json")


def test_an_unknown_architecture_is_refused_with_what_is_supported(directory):
    """The message lists every family."""
    configure(directory, model_type="mamba2", architectures=["Mamba2ForCausalLM"])
    with pytest.raises(ModelRejected, match="'mamba2'") as error:
        open_model(directory)
    assert all(family in str(error.value) for family in FAMILIES)


def test_another_head_on_a_known_family_is_refused(directory):
    """A classifier is no language model."""
    configure(directory, architectures=["LlamaForSequenceClassification"])
    refused(directory, "LlamaForSequenceClassification")


def test_code_in_the_directory_is_never_run(directory, tmp_path):
    """auto_map on a known family is ignored; on an unknown one it is named in the refusal."""
    marker = tmp_path / "ran"
    (directory / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass M: pass\n")
    auto_map = {"AutoConfig": "evil.M", "AutoModelForCausalLM": "evil.M"}
    configure(directory, auto_map=auto_map)
    assert type(open_model(directory).module).__name__ == "LlamaForCausalLM"
    configure(directory, model_type="evil")
    refused(directory, "never run")
    assert not marker.exists()


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8", "bitsandbytes", "mxfp4"])
def test_quantised_checkpoints_are_refused(directory, method):
    """With the method found and what is supported."""
    configure(directory, quantization_config={"quant_method": method})
    refused(directory, f"quantised with '{method}'; supported: unquantised")


@pytest.mark.parametrize("name", ["num_attention_heads", "vocab_size", "num_hidden_layers"])
@pytest.mark.parametrize("value", [0, -1, "many"])
def test_impossible_sizes_are_refused(directory, name, value):
    """By whichever check sees them first, transformers' or ours."""
    configure(directory, **{name: value})
    refused(directory, r"config\.json")


# The sixteen values of a 4-bit float, E2M1.
FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def test_gpt_oss_as_published_is_dequantised_by_value(tmp_path):
    """Blocks of 32 four-bit floats, two to a byte (low half first), with a power-of-two scale."""
    path = shutil.copytree(model_dir(by_name("gpt-oss")), tmp_path / "model")
    rng = np.random.default_rng(0)
    expected = {}

    def quantise(tensors):
        for name in [name for name in tensors if name.endswith("_proj") and "experts" in name]:
            experts, rows, columns = tensors.pop(name).shape
            blocks = rng.integers(0, 256, (experts, columns, rows // 32, 16), dtype=np.uint8)
            scales = rng.integers(120, 127, (experts, columns, rows // 32), dtype=np.uint8)
            tensors |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
            values = np.stack([FP4[blocks & 15], FP4[blocks >> 4]], -1).reshape(*scales.shape, 32)
            values *= 2.0 ** (scales.astype(np.float32) - 127)[..., None]
            expected[name] = values.reshape(experts, columns, rows).transpose(0, 2, 1)

    one_file(path, quantise)
    configure(path, quantization_config={"quant_method": "mxfp4"})
    weights = dict(open_model(path, device="cpu").module.named_parameters())
    assert len(expected) == 4
    for name, values in expected.items():
        assert np.array_equal(weights[name].numpy(), values)


def test_layer_types_without_paged_attention_are_refused(directory):
    """Linear attention keeps another kind of state."""
    configure(directory, layer_types=["full_attention", "linear_attention"])
    refused(directory, "linear_attention")


def test_weights_in_other_formats_are_refused(directory):
    """Pickles are not opened, only named."""
    for file in directory.glob("model*"):
        file.unlink()
    (directory / "pytorch_model.bin").write_bytes(b"\x80\x04")
    refused(directory, r"found pytorch_model\.bin, which are not loaded: only safetensors")


def shards(directory):
    return sorted(directory.glob("model-*.safetensors"))


def test_a_missing_shard_is_named(directory):
    """Before anything is loaded."""
    shards(directory)[1].unlink()
    refused(directory, r"shard model-00002-of-\d+\.safetensors is missing")


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_truncated_shard_is_named(directory, keep):
    """Cut anywhere: in the length, the header or the data."""
    file = shards(directory)[0]
    file.write_bytes(file.read_bytes()[:keep])
    refused(directory, f"{file.name} is truncated or not safetensors")


def test_a_shard_that_lacks_a_tensor_is_named(directory):
    """The index promises more than the file holds."""
    file = shards(directory)[0]
    tensors = load_file(file)
    gone = tensors.popitem()[0]
    save_file(tensors, file, {"format": "pt"})
    refused(directory, f"{file.name} lacks 1 tensors, among them {gone}")


def test_an_index_that_points_elsewhere_is_refused(directory):
    """A shard is a file of this directory, nothing else."""
    (directory / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../b"}}')
    refused(directory, r"'\.\./b', which is not a plain file name")


def one_file(directory, change):
    """Rewrite all shards as one file, after a change to its tensors."""
    tensors = {}
    for file in shards(directory):
        tensors |= load_file(file)
        file.unlink()
    (directory / "model.safetensors.index.json").unlink()
    change(tensors)
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})


def test_missing_weights_are_refused(directory):
    """Never a randomly initialised layer."""
    one_file(directory, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    refused(directory, r"1 missing keys, first model\.layers\.1\.mlp\.up_proj\.weight")


def test_unexpected_weights_are_refused(directory):
    """A checkpoint with more in it is another model than the config says."""
    one_file(directory, lambda tensors: tensors.update(extra=np.zeros(2, np.float32)))
    refused(directory, "1 unexpected keys, first extra")


def test_weights_of_another_shape_are_refused(directory):
    """Named by the tensor."""
    name = "model.norm.weight"
    one_file(directory, lambda tensors: tensors.update({name: np.zeros(3, np.float32)}))
    refused(directory, name)


@pytest.mark.parametrize("device", ["tpu9", "cuda:77", "meta"])
def test_a_device_that_is_not_there_is_refused(directory, device):
    """With what can be asked for, or what was found."""
    with pytest.raises(ModelRejected, match=device):
        open_model(directory, device=device)


def test_a_type_that_is_not_offered_is_refused(directory):
    """float16 overflows where bfloat16 does not."""
    with pytest.raises(ModelRejected, match="'float16' is not supported"):
        open_model(directory, dtype="float16")


def test_auto_on_the_cpu_is_float32_whatever_the_checkpoint(directory):
    """And bfloat16 is there for who asks."""
    configure(directory, dtype="bfloat16")
    assert open_model(directory, device="cpu").dtype == torch.float32
    loaded = open_model(directory, device="cpu", dtype="bfloat16")
    assert {weight.dtype for weight in loaded.module.parameters()} == {torch.bfloat16}


def test_loading_reports_its_phases(directory):
    """From 0 to 1, for a progress bar."""
    seen = []
    open_model(directory, progress=lambda phase, done: seen.append((phase, done)))
    assert seen[0] == ("check", 0.0)
    assert seen[-1] == ("ready", 1.0)
    assert [done for _, done in seen] == sorted(done for _, done in seen)


def test_loading_is_quiet(directory, capfd):
    """Neither bars nor warnings: what matters is raised."""
    open_model(directory)
    assert capfd.readouterr() == ("", "")


def test_threads_are_one_for_small_models_and_otherwise_as_told(directory):
    """A tiny operation costs less than waking a thread."""
    before = torch.get_num_threads()
    try:
        open_model(directory, threads=2)
        assert torch.get_num_threads() == 2
        open_model(directory)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
