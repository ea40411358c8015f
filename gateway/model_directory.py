"""The text side of a model directory: tokenizer, chat template, names, and its own defaults."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from engines.api import EngineInfo
from engines.text.model_files import read_object
from engines.text.template import ChatTemplate
from engines.text.tokenizer import Tokenizer
from openai_compat.served import ServedModel

# Sampling values a model may bring, with the bounds that the dialect sets for clients.
_DEFAULTS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "temperature": (0, 2),
        "top_p": (0, 1),
        "top_k": (0, 1 << 31),
        "min_p": (0, 1),
        "repetition_penalty": (0, 10),
    }
)


@dataclass(frozen=True, slots=True)
class TextSide:
    """What turns text to tokens and back for one model."""

    tokenizer: Tokenizer
    template: ChatTemplate | None
    defaults: Mapping[str, float]

    @property
    def end_tokens(self) -> frozenset[int]:
        """The tokenizer's own end-of-text token, for models whose configuration names none."""
        named = self.tokenizer.named_tokens.get("eos_token")
        token = None if named is None else self.tokenizer.token_id(named)
        return frozenset() if token is None else frozenset({token})

    def served_as(
        self, names: tuple[str, ...], info: EngineInfo, stop_tokens: frozenset[int]
    ) -> ServedModel:
        """The model under its name; further names are aliases."""
        return ServedModel(
            name=names[0],
            created=int(datetime.now(UTC).timestamp()),
            info=info,
            tokenizer=self.tokenizer,
            template=self.template,
            stop_tokens=stop_tokens,
            aliases=names[1:],
            defaults=self.defaults,
        )


def read_text_side(path: Path) -> TextSide:
    """Read what lies beside the weights. Raises ModelRejected naming the file at fault."""
    tokenizer = Tokenizer.from_directory(path)
    template = ChatTemplate.from_directory(path, tokenizer.named_tokens)
    generation = read_object(path / "generation_config.json", required=False)
    return TextSide(tokenizer, template, MappingProxyType(_sampling_defaults(generation)))


def _sampling_defaults(generation: Mapping[str, object]) -> dict[str, float]:
    return {
        name: float(value)
        for name, (low, high) in _DEFAULTS.items()
        if isinstance(value := generation.get(name), int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and low <= value <= high
    }
