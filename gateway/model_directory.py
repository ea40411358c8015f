"""The text side of a model directory: tokenizer, chat template, names, and its own defaults."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from engines.api import EngineInfo
from engines.text.model_files import read_object
from engines.text.prompts import Prompts, read_prompts
from engines.text.template import ChatTemplate
from engines.text.tokenizer import Tokenizer
from openai_compat.choice import Ending
from openai_compat.output.model_syntax import ModelSyntax
from openai_compat.sampling import own_defaults
from openai_compat.served import ServedModel


@dataclass(frozen=True, slots=True)
class Writing:
    """How the model writes calls and reasoning, and how a named call is told to have ended."""

    syntax: ModelSyntax = field(default_factory=ModelSyntax)
    named_call_end: Ending = Ending.STOP


@dataclass(frozen=True, slots=True)
class TextSide:
    """What turns text to tokens and back for one model."""

    tokenizer: Tokenizer
    template: ChatTemplate | None
    defaults: Mapping[str, float]
    prompts: Prompts

    @property
    def end_tokens(self) -> frozenset[int]:
        """The tokenizer's own end-of-text token, for models whose configuration names none."""
        named = self.tokenizer.named_tokens.get("eos_token")
        token = None if named is None else self.tokenizer.token_id(named)
        return frozenset() if token is None else frozenset({token})

    def served_as(
        self,
        names: tuple[str, ...],
        info: EngineInfo,
        stop_tokens: frozenset[int],
        writing: "Writing | None" = None,
    ) -> ServedModel:
        """The model under its name; further names are aliases. Not told, it writes plain text."""
        written = writing or Writing()
        return ServedModel(
            name=names[0],
            created=int(datetime.now(UTC).timestamp()),
            info=info,
            tokenizer=self.tokenizer,
            template=self.template,
            stop_tokens=stop_tokens,
            aliases=names[1:],
            defaults=self.defaults,
            syntax=written.syntax,
            named_call_end=written.named_call_end,
            prompts=self.prompts,
        )


def read_text_side(path: Path) -> TextSide:
    """Read what lies beside the weights. Raises ModelRejected naming the file at fault."""
    tokenizer = Tokenizer.from_directory(path)
    template = ChatTemplate.from_directory(path, tokenizer.named_tokens)
    generation = read_object(path / "generation_config.json", required=False)
    defaults = own_defaults(generation, tokenizer.vocab_size)
    return TextSide(tokenizer, template, MappingProxyType(defaults), read_prompts(path))
