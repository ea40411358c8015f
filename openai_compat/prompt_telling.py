"""What an answer tells of its prompt: token ids and log-probabilities, in vLLM's shapes."""

from collections.abc import Sequence

from engines.api import TokenLogprobs
from engines.text.tokenizer import Tokenizer
from openai_compat.logprobs import finite


class PromptTelling:
    """The extras of one prompt, as members of a JSON object; empty where nobody asked."""

    __slots__ = ("_ids", "_tokenizer", "prompt")

    def __init__(self, prompt: Sequence[int], tokenizer: Tokenizer, *, ids: bool) -> None:
        self.prompt = prompt
        self._tokenizer = tokenizer
        self._ids = ids

    def ids(self) -> dict[str, object]:
        """`prompt_token_ids`."""
        return {"prompt_token_ids": list(self.prompt)} if self._ids else {}

    def logprobs(self, told: Sequence[TokenLogprobs] | None) -> dict[str, object]:
        """`prompt_logprobs`: null for the first token, then a map from token ids for each."""
        if told is None:
            return {}
        places = zip(self.prompt[1:], told, strict=True)
        return {"prompt_logprobs": [None, *(self._place(token, entry) for token, entry in places)]}

    def _place(self, token: int, entry: TokenLogprobs) -> dict[str, object]:
        """The prompt's own token first, then the likeliest; its rank is known if it is of them."""
        ranks = {likely: rank for rank, (likely, _) in enumerate(entry.top, 1)}
        place = {str(token): self._entry(token, entry.logprob, ranks.get(token))}
        for likely, logprob in entry.top:
            place.setdefault(str(likely), self._entry(likely, logprob, ranks[likely]))
        return place

    def _entry(self, token: int, logprob: float, rank: int | None) -> object:
        text = self._tokenizer.token_text(token)
        return {"logprob": finite(logprob), "rank": rank, "decoded_token": text}
