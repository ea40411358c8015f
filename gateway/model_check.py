"""`penstock check`: the facts of a model directory, read without loading its weights."""

from pathlib import Path
from typing import TYPE_CHECKING

from engines.errors import ModelRejected
from gateway.model_directory import TextSide, read_text_side
from gateway.opened import model_path
from gateway.settings import Settings

if TYPE_CHECKING:
    from engines.torch.recipe import Recipe

_MIB = 1 << 20


def facts_of(model_dir: Path | None) -> dict[str, str]:
    """What would be served, by name. Raises ModelRejected when it cannot be."""
    try:
        from engines.torch.checkpoint import check_weights  # noqa: PLC0415 - seconds of import
        from engines.torch.encoders import is_encoder  # noqa: PLC0415
    except ImportError as error:
        raise ModelRejected(
            f"the torch engine is not installed ({error.name} is missing): install penstock[torch]"
        ) from error
    path = model_path(Settings(model_dir=model_dir))
    own = _of_encoder(path) if is_encoder(path) else _of_decoder(path)
    check_weights(path)
    read_text_side(path)
    return {"directory": str(path), "servable": "yes", **own}


def _of_decoder(path: Path) -> dict[str, str]:
    from engines.torch.families import read_facts  # noqa: PLC0415

    facts = read_facts(path)
    text = read_text_side(path)
    kv_bytes = facts.kv_bytes_per_token("float32")
    return {
        "family": f"{facts.family} ({facts.architecture})",
        "context": f"{facts.max_context} tokens",
        "vocabulary": f"{facts.vocab_size} tokens",
        "layers": str(facts.layers),
        "weights": _weights(path, facts.dtype),
        "KV cache": f"{kv_bytes} bytes per token in float32",
        **(_of_chat(text, facts.eos_ids) if facts.generates else {"chat": "no: vectors only"}),
        **_of_vectors(facts.recipe, facts.hidden_size),
    }


def _of_chat(text: TextSide, eos_ids: tuple[int, ...]) -> dict[str, str]:
    return {
        "stop tokens": ", ".join(map(str, eos_ids)) or "none",
        "chat": "yes" if text.template else "no chat template: completions only",
        "sampling": ", ".join(f"{k} {v:g}" for k, v in text.defaults.items()) or "no defaults",
    }


def _of_encoder(path: Path) -> dict[str, str]:
    from engines.torch.encoders import read_encoder  # noqa: PLC0415

    facts = read_encoder(path)
    purpose = {"rerank": "yes: judges pairs of texts"}
    return {
        "family": f"{facts.family} ({facts.architecture})",
        "context": f"{facts.max_context} tokens",
        "vocabulary": f"{facts.vocab_size} tokens",
        "layers": str(facts.layers),
        "weights": _weights(path, facts.dtype),
        "KV cache": "none",
        "chat": "no: an encoder generates nothing",
        **(purpose if facts.ranks else _of_vectors(facts.recipe, facts.hidden_size)),
    }


def _of_vectors(recipe: "Recipe", hidden: int) -> dict[str, str]:
    length = "of length 1" if recipe.normalise else "as they are"
    whence = "modules.json" if recipe.declared else "by default"
    pooling = f"{recipe.size(hidden)} numbers {length}, {recipe.pooling} pooling ({whence})"
    return {"embeddings": pooling}


def _weights(path: Path, dtype: str) -> str:
    size = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    return f"{size / _MIB:.1f} MiB, {dtype}"
