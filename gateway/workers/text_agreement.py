"""Whether a worker computes the model whose text side a gateway has: else answers are noise."""

from engines.errors import ModelRejected
from engines.text.model_files import read_object
from engines.wire.facts import WorkerFacts
from gateway.model_directory import TextSide
from gateway.opened import model_names, model_path
from gateway.settings import Settings


def check_agreement(name: str, facts: WorkerFacts, text: TextSide, settings: Settings) -> None:
    """Compare names and vocabularies. Raises ModelRejected saying how they differ."""
    ours, theirs = model_names(settings)[0], facts.info.model
    if ours != theirs:
        raise ModelRejected(
            f"{name} serves {theirs!r}, and this gateway {ours!r}: give both the same MODEL_DIR,"
            " or the same --served-model-name"
        )
    sizes = {text.tokenizer.vocab_size, *_declared(settings)}
    if facts.info.vocab_size not in sizes:
        raise ModelRejected(
            f"{name} has a vocabulary of {facts.info.vocab_size} tokens, and this gateway one of"
            f" {text.tokenizer.vocab_size}: they have different models"
        )


def _declared(settings: Settings) -> set[object]:
    """Sizes that the model's configuration tells: embeddings are often padded beyond the texts."""
    config = read_object(model_path(settings) / "config.json", required=False)
    nested = config.get("text_config")
    return {each.get("vocab_size") for each in (config, nested) if isinstance(each, dict)}
