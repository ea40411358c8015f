"""Requests as messages of the SMG protocol: every field that it has, and no other."""

import pytest

from engines.api import GenerationRequest, RequestId, Sampling, ThinkingBudget
from engines.errors import Unsupported
from engines.smg.facts import HONOURS, Given, read_facts
from engines.smg.messages import Phrases
from engines.trtllm.sampling import Stage

pb = pytest.importorskip(
    "smg_grpc_proto", reason="needs the SMG stubs: penstock[smg]"
).trtllm_service_pb2

END = 49


def phrases(ends=frozenset({END}), honours=HONOURS):
    told = pb.GetModelInfoResponse(model_id="m", max_seq_len=64, max_batch_size=4, vocab_size=50)
    return Phrases(read_facts(told, Given(num_blocks=9, ends=ends, honours=honours)), pb)


def asked(*, salt=b"", said=None, **sampling):
    emitted = () if said is None else (said,)
    values = {"max_tokens": 16, **sampling}
    return GenerationRequest(
        RequestId("a"), (1, 2, 3), Sampling(**values), cache_salt=salt, emitted=emitted
    )


def written(request, log=(), **given):
    made = phrases(**given)
    made.check(request)
    return made.message(made.facts.writer.stage(request, 0, log), request, "call")


def test_every_field_of_sampling_that_the_protocol_has():
    """Values as they are; nothing is left to a default of the server's."""
    message = written(
        asked(
            salt=b"tenant",
            temperature=0.5,
            top_k=7,
            top_p=0.25,
            min_p=0.125,
            presence=0.5,
            frequency=-0.5,
            repetition=1.5,
            stop_tokens=frozenset({END, 4}),
            bias={5: 2.0},
        )
    )
    config = message.sampling_config
    assert (message.request_id, message.max_tokens, message.streaming) == ("call", 16, True)
    assert list(message.tokenized.input_token_ids) == [1, 2, 3]
    assert (config.beam_width, config.num_return_sequences) == (1, 1)
    assert (config.temperature, config.top_k, config.top_p, config.min_p) == (0.5, 7, 0.25, 0.125)
    assert (config.presence_penalty, config.frequency_penalty) == (0.5, -0.5)
    assert (config.repetition_penalty, config.prompt_ignore_length) == (1.5, 3)
    assert config.HasField("seed")
    assert sorted(message.stop_token_ids) == [4, END]
    assert message.include_stop_token_in_output
    assert not message.ignore_eos
    assert len(message.embedding_bias) == 50
    assert message.embedding_bias[5] == 2.0
    assert message.HasField("cache_salt_id")
    assert not message.output_config.HasField("logprobs")


def test_what_another_engine_said_is_prompt_and_counts_as_said():
    """The rest is asked for; penalties still begin where the prompt ended."""
    message = written(asked(said=(8, 9), temperature=1.0, presence=1.0), log=(8, 9))
    assert list(message.tokenized.input_token_ids) == [1, 2, 3, 8, 9]
    assert message.max_tokens == 14
    assert message.sampling_config.prompt_ignore_length == 3


def test_greedy_asks_for_no_seed_and_no_bias():
    """Nor for a salt."""
    message = written(asked(temperature=0.0, logprobs=0))
    assert message.sampling_config.temperature == 0
    assert not message.sampling_config.HasField("seed")
    assert not message.HasField("cache_salt_id")
    assert not message.embedding_bias
    assert message.output_config.logprobs == 1
    assert message.ignore_eos


@pytest.mark.parametrize(
    ("source", "kind", "guide"),
    [
        ("start: /a/", pb.GuidedDecodingParams.GUIDE_TYPE_EBNF_GRAMMAR, "start: /a/"),
        (
            '{"grammars": [{"json_schema": {"type": "null"}}]}',
            pb.GuidedDecodingParams.GUIDE_TYPE_JSON_SCHEMA,
            '{"type": "null"}',
        ),
    ],
)
def test_a_grammar_for_llguidance(source, kind, guide):
    """The server looks for its end itself."""
    message = written(asked(grammar=source, stop_tokens=frozenset({END})))
    assert (message.guided_decoding.guide_type, message.guided_decoding.guide) == (kind, guide)
    assert not message.ignore_eos


@pytest.mark.parametrize(
    ("sampling", "ends", "param"),
    [
        ({"grammar": "start: /a/"}, {END}, "grammar"),
        ({"grammar": "start: /a/", "stop_tokens": frozenset({END, 4})}, {END, 4}, "grammar"),
        ({"grammar": "start: /a/", "stop_tokens": frozenset({END})}, set(), "grammar"),
        (
            {"grammar": "start: /a/", "stop_tokens": frozenset({END}), "logprobs": 1},
            {END},
            "logprobs",
        ),
        ({"thinking": ThinkingBudget(3, (), (5,))}, {END}, "thinking"),
        ({"bad_words": ((1, 2),)}, {END}, "bad_words"),
    ],
)
def test_what_cannot_be_said_is_refused(sampling, ends, param):
    """By the name of the field."""
    with pytest.raises(Unsupported) as refused:
        written(asked(**sampling), ends=frozenset(ends))
    assert refused.value.param == param


def test_a_parameter_without_a_field_is_not_dropped():
    """Should what a call says of itself grow, it is refused here until it is mapped."""
    stage = Stage([1], {"max_tokens": 1, "top_p_decay": 0.5}, None, None, 1, holds_stops=False)
    with pytest.raises(Unsupported, match="top_p_decay"):
        phrases().message(stage, asked(), "call")
