"""Open a local directory with an encoder: check, build, load. No network, no code of its own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engines.torch import bidirectional
from engines.torch.batch import MIN_ROWS
from engines.torch.checkpoint import check_weights
from engines.torch.encoders import UNUSED, EncoderFacts, read_encoder
from engines.torch.loading import Progress, choose_place, load_weights, settle
from engines.torch.recipe import Pooling
from engines.torch.vectors import Head, load_head

_WITH_POOLER = frozenset({"bert", "camembert", "roberta", "xlm-roberta"})


@dataclass(frozen=True, slots=True)
class LoadedEncoder:
    """An encoder ready to step."""

    module: nn.Module  # rows to hidden states, attending within texts
    head: Head
    facts: EncoderFacts
    device: torch.device
    dtype: torch.dtype


def open_encoder(
    path: Path,
    *,
    dtype: str = "auto",
    device: str = "auto",
    threads: int = 0,
    progress: Progress | None = None,
) -> LoadedEncoder:
    """Load the encoder in `path`; the arguments are those of `open_model`. Raises ModelRejected."""
    report = progress or (lambda _phase, _fraction: None)
    report("check", 0.0)
    facts = read_encoder(path)
    check_weights(path)
    place = choose_place(device, dtype, facts.dtype)
    bidirectional.install()
    report("weights", 0.1)
    # The layer on top of the first row belongs to other tasks, and some checkpoints leave it out.
    plain = {} if facts.ranks or facts.family not in _WITH_POOLER else {"add_pooling_layer": False}
    module = load_weights(
        path,
        facts.architecture,
        place.dtype,
        unused=UNUSED,
        attn_implementation=bidirectional.NAME,
        **plain,
    )
    module = settle(module, place, threads)
    head: Head = (
        RankHead(module)
        if facts.ranks
        else load_head(facts.recipe, facts.hidden_size, place.device)
    )
    report("ready", 1.0)
    base: nn.Module = module.base_model if facts.ranks else module  # type: ignore[assignment]
    return LoadedEncoder(base, head, facts, place.device, place.dtype)


class RankHead:
    """The classifier of a cross-encoder on the first row of a pair: one logit."""

    pooling = Pooling.CLS

    def __init__(self, module: nn.Module) -> None:
        self._module: Any = module  # its parts are named by its family

    def __call__(self, pooled: Tensor) -> Tensor:
        module, count = self._module, len(pooled)
        dtype = next(module.parameters()).dtype
        rows = pooled.to(dtype).expand(max(count, MIN_ROWS), -1) if count == 1 else pooled.to(dtype)
        base = module.base_model
        if hasattr(module, "pre_classifier"):  # DistilBERT
            rows = nn.functional.relu(module.pre_classifier(rows))
        elif getattr(base, "pooler", None) is not None:  # BERT
            rows = base.pooler(rows[:, None])
        else:  # the head takes the first row itself
            rows = rows[:, None]
        logits: Tensor = module.classifier(rows)
        return logits[:count].float()
