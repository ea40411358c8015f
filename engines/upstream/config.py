"""What an operator says of an upstream. Nothing of it ever comes from a request."""

from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit

from engines.api import Capability


class Kind(StrEnum):
    """What an upstream understands."""

    PLAIN = "openai-plain"  # what OpenAI documents, and return_token_ids
    VLLM = "vllm"
    PENSTOCK = "penstock"

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What requests may ask of it; `fields.check` refuses some values by name."""
        can = {Capability.SAMPLING, Capability.PENALTIES, Capability.LOGIT_BIAS}
        if self is not Kind.PLAIN:
            can |= {Capability.LOGPROBS, Capability.GUIDES}
        return frozenset(can)


@dataclass(frozen=True, slots=True)
class UpstreamConfig:
    """One upstream and the model in it. Raises ValueError for a URL that cannot be one."""

    base_url: str  # with its /v1, as in any SDK
    kind: Kind
    vocab_size: int  # of the tokenizer on our side, which must be the upstream's
    ends: frozenset[int]  # tokens with which the model ends an answer
    model: str | None = None  # None: the first that the upstream lists
    api_key: str | None = field(default=None, repr=False)
    max_context: int | None = None  # None: as the upstream tells
    max_running: int = 256  # streams held open at once; more wait here
    priorities: bool = False  # vLLM refuses them unless it runs --scheduling-policy priority
    silence_s: float = 600.0  # an upstream that says nothing for so long has died

    def __post_init__(self) -> None:
        url = urlsplit(self.base_url)
        sound = self.base_url.isprintable() and " " not in self.base_url and url.port != 0
        if url.scheme not in {"http", "https"} or not url.hostname or not sound:
            raise ValueError("an upstream's URL is http://HOST/v1 or https://HOST/v1")
        if url.username or url.password or url.query or url.fragment:
            raise ValueError("an upstream's URL has no user, query or fragment: it is logged")
        if not (self.api_key or "-").isascii() or not (self.api_key or "-").isprintable():
            raise ValueError("the upstream's API key cannot be sent in a header")
