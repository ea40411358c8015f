"""How much a grammar may cost, and what is said of one that cannot be taken.

Every limit is llguidance's own; its speeds are those its documentation gives. A sequence whose
grammar meets a limit fails alone (`StepResult.failed`).
"""

import re

from llguidance import LLParserLimits

MAX_SOURCE_BYTES = 256 * 1024

_LONGEST_REASON = 300  # characters
_LONGEST_QUOTE = 48
_EXPRESSION = re.compile(r":?\s+\((And|Or|Not|Concat|Repeat|Byte)\b.*")  # a regex, taken apart
_QUOTED = re.compile(r'"[^"]*"|\'[^\']*\'|`[^`]*`')


def parser_limits() -> LLParserLimits:
    """The same for checking, compiling and sampling, so that what was accepted also compiles."""
    return LLParserLimits(
        max_items_in_row=2_000,  # ways a text may be read at once
        initial_lexer_fuel=1_000_000,  # 20 ms of building regular expressions
        step_lexer_fuel=100_000,  # 7 ms for one mask, half of llguidance's own limit
        step_max_items=50_000,  # 2.5 ms for one mask
        max_lexer_states=50_000,  # up to 100 MB in one grammar, a fifth of llguidance's own
        max_grammar_size=500_000,  # symbols
        precompute_large_lexemes=True,
        verbose_errors=False,  # the grammar is the client's: it is not for our logs
    )


def reason(message: str) -> str:
    """What llguidance found wrong, in one line, without the excerpts of the source it adds.

    Excerpts are the indented lines; quotations stay where they are short, since they name the
    keyword or rule at fault.
    """
    lines = message.replace("<non-verbose/>", "").splitlines()
    if message.startswith("NoExtensionBias"):
        return "there is no text that it matches"
    said = " ".join(line.strip() for line in lines if line and not line[0].isspace())
    said = _QUOTED.sub(_shortened, _EXPRESSION.sub("", said)).strip() or "it cannot be compiled"
    return said if len(said) <= _LONGEST_REASON else said[: _LONGEST_REASON - 1] + "…"


def _shortened(quoted: re.Match[str]) -> str:
    text = quoted.group()
    return text if len(text) <= _LONGEST_QUOTE else f"{text[0]}…{text[0]}"
