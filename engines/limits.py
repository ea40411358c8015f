"""How much a stepped engine takes on, and the check that refuses what can never fit. Pure."""

import math
from dataclasses import dataclass

from engines.api import GenerationRequest, Sampling
from engines.errors import CapacityExceeded, ContextOverflow, InvalidRequest

MAX_LOGPROBS = 20  # most likely tokens told per position, as in OpenAI's API
_SMALLEST_CHUNK = 4  # see Limits.__post_init__


@dataclass(frozen=True, slots=True)
class Limits:
    """The sizes of a stepped engine; constant over its life."""

    max_context: int  # tokens of one sequence, prompt and output
    max_running: int  # sequences in one step
    tokens_per_step: int  # rows in one step
    block_size: int  # tokens per KV block
    num_blocks: int
    vocab_size: int
    ageing_steps: int = 256  # steps of waiting that outweigh one class of priority
    whole_prompts: bool = False  # prompts are never cut: encoders see all of a text at once
    draft_tokens: int = 0  # guessed ahead for a sequence in one step, at most
    step_target_s: float = 0.0  # what a step of decoding and prompts may take; 0: any time

    def __post_init__(self) -> None:
        """Raise ValueError for sizes that could starve a prompt.

        Decoding rows go first. What they leave must hold a legal prompt chunk: at least two
        tokens, and not leaving exactly one behind (see Scheduler), hence the margin.
        """
        if min(self.max_context, self.max_running, self.block_size, self.num_blocks) < 1:
            raise ValueError("context, sequences, block size and blocks must be at least 1")
        if self.tokens_per_step < self.max_running + _SMALLEST_CHUNK:
            raise ValueError(
                f"tokens_per_step is {self.tokens_per_step}, must be at least max_running + "
                f"{_SMALLEST_CHUNK} = {self.max_running + _SMALLEST_CHUNK}"
            )
        if self.whole_prompts and self.tokens_per_step < self.max_context:
            raise ValueError(
                f"tokens_per_step is {self.tokens_per_step}, must be at least max_context ="
                f" {self.max_context} where prompts are never cut"
            )
        if self.whole_prompts and self.step_target_s:
            raise ValueError("step_target_s must be 0 where prompts are never cut")

    @property
    def blocks_per_sequence(self) -> int:
        """Blocks of the longest sequence."""
        return self.blocks_for(self.max_context)

    def blocks_for(self, tokens: int) -> int:
        """KV blocks that hold so many tokens."""
        return -(-tokens // self.block_size)

    def check(self, request: GenerationRequest) -> None:
        """Raise InvalidRequest for what can never run here. Looks at constants only."""
        if not request.prompt:
            raise InvalidRequest("the prompt has no tokens", param="prompt")
        if not 0 <= min(request.prompt) <= max(request.prompt) < self.vocab_size:
            raise InvalidRequest(
                f"a prompt token is outside the vocabulary of {self.vocab_size}", param="prompt"
            )
        if not 0 < request.weight < math.inf:
            raise InvalidRequest("the weight must be finite and above 0", param="weight")
        if request.shared is not None and not 1 <= request.shared.tokens <= len(request.prompt):
            raise InvalidRequest("what is shared must be of the prompt", param="shared")
        self._check_length(request)
        self._check_sampling(request.sampling)
        self._check_emitted(request)
        if not 1 <= request.n <= self.max_running:
            raise CapacityExceeded(
                f"n is {request.n}; this engine runs at most {self.max_running} sequences at once "
                "(--max-running)",
                param="n",
            )

    def _check_sampling(self, sampling: Sampling) -> None:
        """Refuse what would fail inside a runner, and so under everybody."""
        most = min(MAX_LOGPROBS, self.vocab_size)
        if sampling.logprobs is not None and not 0 <= sampling.logprobs <= most:
            raise InvalidRequest(
                f"logprobs is {sampling.logprobs}, must be 0 to {most}", param="logprobs"
            )
        if sampling.prompt_logprobs is not None and not 0 <= sampling.prompt_logprobs <= most:
            raise InvalidRequest(
                f"prompt_logprobs is {sampling.prompt_logprobs}, must be 0 to {most}",
                param="prompt_logprobs",
            )
        self._check_guides(sampling)
        if sampling.min_tokens and len(sampling.stop_tokens) >= self.vocab_size:
            raise InvalidRequest(
                "min_tokens cannot hold back every token there is", param="min_tokens"
            )
        values = (
            sampling.temperature, sampling.top_p, sampling.min_p,
            sampling.presence, sampling.frequency, sampling.repetition, *sampling.bias.values(),
        )  # fmt: skip
        if not all(map(math.isfinite, values)):
            raise InvalidRequest("sampling values must be finite", param="sampling")

    def _check_guides(self, sampling: Sampling) -> None:
        """Refuse guides that leave nothing to say, or name what is not there."""
        known = range(self.vocab_size)
        if sampling.allowed is not None and not any(token in known for token in sampling.allowed):
            raise InvalidRequest(
                f"none of the allowed tokens is in the vocabulary of {self.vocab_size}",
                param="allowed",
            )
        if not all(sampling.bad_words):
            raise InvalidRequest("a bad word has no tokens", param="bad_words")
        budget = sampling.thinking
        if budget is None:
            return
        if budget.tokens < 0:
            raise InvalidRequest(
                f"the thinking budget is {budget.tokens}, must be >= 0", param="thinking"
            )
        if not budget.end or not all(token in known for token in (*budget.begin, *budget.end)):
            raise InvalidRequest(
                "the end of thinking must be tokens of the vocabulary", param="thinking"
            )

    def _check_emitted(self, request: GenerationRequest) -> None:
        """Refuse what no engine can have emitted without ending the choice."""
        if not request.emitted:
            return
        if len(request.emitted) != request.n or not request.choices or request.pooled:
            raise InvalidRequest(
                f"emitted has {len(request.emitted)} choices, {len(request.choices)} of them open; "
                f"{request.n} are asked for, and one must be open and not pooled",
                param="emitted",
            )
        sampling, known = request.sampling, range(self.vocab_size)
        for log in filter(None, request.emitted):
            over = len(log) >= sampling.max_tokens
            if over or not sampling.stop_tokens.isdisjoint(log):
                raise InvalidRequest("an emitted choice has ended", param="emitted")
            if not all(token in known for token in log):
                raise InvalidRequest(
                    f"an emitted token is outside the vocabulary of {self.vocab_size}",
                    param="emitted",
                )

    def _check_length(self, request: GenerationRequest) -> None:
        prompt, max_tokens = len(request.prompt), request.sampling.max_tokens
        if max_tokens < 1:
            raise InvalidRequest(f"max_tokens is {max_tokens}, must be >= 1", param="max_tokens")
        said = 0 if request.pooled else max_tokens  # a pooled request's token needs no room
        total = prompt + said
        if total > self.max_context:
            raise ContextOverflow(
                f"{prompt} prompt tokens + max_tokens {said} = {total}; "
                f"the context is {self.max_context} tokens",
                param="prompt",
            )
        blocks = self.blocks_for(max(prompt, total - 1))  # the last token is said, never computed
        if blocks > self.num_blocks:
            raise CapacityExceeded(
                f"{total} tokens need {blocks} KV blocks of {self.block_size}; "
                f"this engine has {self.num_blocks} (--kv-cache-memory)",
                param="prompt",
            )
