"""Our requests as GenerateRequests of the SMG protocol. Pure.

What to say of a request is decided by `engines.trtllm.sampling`, a call at a time. What differs
here is how a call ends: the server always knows the model's end token, and may take it out of the
answer without a word. So either it looks for the stop tokens, where the one it may take out is
known; or it looks for none (ignore_eos), we see the stop token in its answer, and abort.
"""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from engines.api import GenerationRequest, Sampling
from engines.errors import Unsupported
from engines.smg.facts import Facts
from engines.trtllm.sampling import Stage

_SAMPLING = frozenset({
    "temperature", "top_k", "top_p", "min_p", "seed", "repetition_penalty", "presence_penalty",
    "frequency_penalty", "prompt_ignore_length",
})  # fmt: skip
_ELSEWHERE = frozenset({"max_tokens", "stop_token_ids", "include_stop_str_in_output", "logprobs"})
_IMPLIED = frozenset({"end_id", "detokenize", "add_special_tokens"})  # fixed by the server


@dataclass(frozen=True, slots=True)
class Phrases:
    """Says requests to one server; `pb`: the messages of its protocol."""

    facts: Facts
    pb: Any

    @property
    def end(self) -> int | None:
        """The one token at which the server ends by itself; None where there are several."""
        ends = self.facts.writer.ends
        return next(iter(ends)) if len(ends) == 1 else None

    def check(self, request: GenerationRequest) -> None:
        """Raise Unsupported for what could only be ignored, or done in another way."""
        self.facts.writer.check(request)
        sampling = request.sampling
        if sampling.min_tokens and sampling.stop_tokens and not self.facts.biases:
            raise Unsupported("this server cannot hold stop tokens back", param="min_tokens")
        if sampling.grammar is not None:
            self._check_ends(sampling)

    def _check_ends(self, sampling: Sampling) -> None:
        """Refuse a grammar whose last token, which the server takes out, could not be told."""
        if self.end is None:
            raise Unsupported("a grammar needs a model with one end token", param="grammar")
        if sampling.logprobs is not None:
            raise Unsupported("log-probabilities beside a grammar are not told", param="logprobs")

    def ends_itself(self, stage: Stage) -> bool:
        """Whether the server is to look for the stop tokens of a call."""
        stops = stage.parameters.get("stop_token_ids")
        if not isinstance(stops, list) or self.end not in stops:
            return False
        return stage.guide is not None or "logprobs" not in stage.parameters

    def message(self, stage: Stage, request: GenerationRequest, call_id: str) -> Any:
        """One call. Raises Unsupported for a parameter that the protocol has no field for."""
        given = dict(stage.parameters)
        unknown = sorted(given.keys() - _SAMPLING - _ELSEWHERE - _IMPLIED)
        if unknown:
            raise Unsupported(f"SMG has no field for {', '.join(unknown)}", param="sampling")
        pb, ends_itself = self.pb, self.ends_itself(stage)
        return pb.GenerateRequest(
            request_id=call_id,
            tokenized=pb.TokenizedInput(input_token_ids=stage.prompt),
            sampling_config=pb.SamplingConfig(
                beam_width=1,
                num_return_sequences=1,
                **{name: given[name] for name in _SAMPLING & given.keys()},
            ),
            output_config=pb.OutputConfig(
                exclude_input_from_output=True, logprobs=given.get("logprobs")
            ),
            max_tokens=given["max_tokens"],
            streaming=True,
            guided_decoding=self._guide(stage),
            embedding_bias=None if stage.bias is None else stage.bias.tolist(),
            cache_salt_id=_salt_id(request.cache_salt) if request.cache_salt else None,
            stop_token_ids=given["stop_token_ids"] if ends_itself else None,
            ignore_eos=not ends_itself,
            include_stop_token_in_output=ends_itself,
        )

    def _guide(self, stage: Stage) -> Any:
        if stage.guide is None:
            return None
        ((kind, source),) = stage.guide.items()
        kinds = self.pb.GuidedDecodingParams
        named = {"json": kinds.GUIDE_TYPE_JSON_SCHEMA, "grammar": kinds.GUIDE_TYPE_EBNF_GRAMMAR}
        return kinds(guide_type=named[kind], guide=source)


def _salt_id(salt: bytes) -> int:
    return int.from_bytes(blake2b(salt, digest_size=8).digest(), "little", signed=True)
