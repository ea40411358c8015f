"""Random texts of the grammars of random schemas are valid: the worst model there could be."""

import random

import numpy as np
import pytest
from llguidance import LLMatcher

from engines.grammar.bounds import parser_limits
from openai_compat.conversation.ask import AnswerFormat, FormatKind
from openai_compat.conversation.constraint import format_constraint
from openai_compat.conversation.json_schema import check_schema
from tests.support.answers import VOCABULARY, writing
from tests.support.grammars import END, TOKENIZER
from tests.support.random_forms import Forms, problem

SCHEMAS = 800
MOST = 400  # tokens
MODEL = writing()


def text_of(source, chance):
    """A random text by the grammar; None where it came to no end."""
    matcher = LLMatcher(VOCABULARY, source, log_level=0, limits=parser_limits())
    assert not matcher.is_error(), matcher.get_error()
    mask = np.empty((TOKENIZER.get_vocab_size() + 31) // 32, np.int32)
    tokens = []
    while len(tokens) < MOST:
        matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        assert not matcher.is_error(), matcher.get_error()
        left = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist()
        if END in left and (len(left) == 1 or chance.random() < 0.5):
            return TOKENIZER.decode(tokens, skip_special_tokens=False)
        token = chance.choice([token for token in left if token != END])
        assert matcher.consume_token(token)
        tokens.append(token)
    return None


@pytest.mark.parametrize("part", range(4))
def test_whatever_a_schema_lets_through_is_valid(part):
    """Uniform over the tokens that are left, which is further out than any model goes."""
    ended = 0
    for seed in range(part, SCHEMAS, 4):
        chance = random.Random(seed)
        schema = Forms(chance).draw(strict=seed % 3 == 0)
        form = AnswerFormat(FormatKind.JSON_SCHEMA, check_schema(schema, "s"), "s")
        text = text_of(format_constraint(form, MODEL).source, chance)
        if text is not None:
            ended += 1
            assert problem(schema, text) is None, (problem(schema, text), text, schema)
    assert ended >= SCHEMAS // 8
