"""`penstock check`: the facts of a model directory, read without loading its weights."""

from pathlib import Path

from engines.errors import ModelRejected
from gateway.bootstrap import model_path
from gateway.model_directory import read_text_side
from gateway.settings import Settings

_MIB = 1 << 20


def facts_of(model_dir: Path | None) -> dict[str, str]:
    """What would be served, by name. Raises ModelRejected when it cannot be."""
    try:
        from engines.torch.checkpoint import check_weights  # noqa: PLC0415 - seconds of import
        from engines.torch.families import read_facts  # noqa: PLC0415
    except ImportError as error:
        raise ModelRejected(
            f"the torch engine is not installed ({error.name} is missing): install penstock[torch]"
        ) from error
    path = model_path(Settings(model_dir=model_dir))
    facts = read_facts(path)
    check_weights(path)
    text = read_text_side(path)
    weights = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    kv_bytes = facts.kv_bytes_per_token("float32")
    return {
        "directory": str(path),
        "servable": "yes",
        "family": f"{facts.family} ({facts.architecture})",
        "context": f"{facts.max_context} tokens",
        "vocabulary": f"{facts.vocab_size} tokens",
        "layers": str(facts.layers),
        "weights": f"{weights / _MIB:.1f} MiB, {facts.dtype}",
        "KV cache": f"{kv_bytes} bytes per token in float32",
        "stop tokens": ", ".join(map(str, facts.eos_ids)) or "none",
        "chat": "yes" if text.template else "no chat template: completions only",
        "sampling": ", ".join(f"{k} {v:g}" for k, v in text.defaults.items()) or "no defaults",
    }
