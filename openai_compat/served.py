"""The model behind a name: what lowering needs to know to turn text into tokens and back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from engines.api import EngineInfo
from engines.text.prompts import Prompts
from engines.text.template import ChatTemplate
from engines.text.tokenizer import Tokenizer
from openai_compat.choice import Ending
from openai_compat.logprobs import ChatLogprobs
from openai_compat.output.model_syntax import ModelSyntax


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One served model. `defaults` are the model's own (generation_config.json) sampling values."""

    name: str
    created: int  # unix seconds, when it was loaded
    info: EngineInfo
    tokenizer: Tokenizer
    template: ChatTemplate | None  # None: completions only
    stop_tokens: frozenset[int]  # end-of-text ids of the model
    aliases: tuple[str, ...] = ()
    defaults: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    syntax: ModelSyntax = field(default_factory=ModelSyntax)
    named_call_end: Ending = Ending.STOP  # of a call that the client named
    prompts: Prompts = field(default_factory=Prompts)  # of an embedding model
    takes_extras: bool = False  # requests may hand the engine what this server does not read
    base: str = ""  # the model that this is a LoRA adapter of; empty: it is none
    chat_logprobs: ChatLogprobs = field(init=False, repr=False, compare=False)
    spelled_tokens: frozenset[int] = field(init=False, repr=False, compare=False)  # markup

    def __post_init__(self) -> None:
        object.__setattr__(self, "chat_logprobs", ChatLogprobs(self.tokenizer))
        found = (self.tokenizer.token_id(marker) for marker in self.syntax.specials)
        object.__setattr__(self, "spelled_tokens", frozenset(t for t in found if t is not None))

    @property
    def adapter(self) -> str:
        """The engine's name of the adapter that this is; empty for the model itself."""
        return self.name if self.base else ""


@dataclass(frozen=True, slots=True)
class CallContext:
    """What a call brings besides its body; made at the edge so that lowering stays pure."""

    id: str  # the request id, unique; also the stem of the completion id
    now: int  # unix seconds
    seed: int  # used where the client gives none
    cache_salt: bytes  # derived by the server from the API key
    group_salt: bytes = b""  # of the keys that share system prompts with it; empty: there are none
    tenant: bytes = b""  # likewise: whose the call is, for a fair line
    weight: float = 1.0  # of that tenant
