"""One choice: text, parts, counts and ends, however its tokens arrive."""

from engines.api import Finish, FinishReason, TokenEvent
from openai_compat.choice import Choice, Ending, joined
from openai_compat.output.delta import (
    CallArguments,
    CallBegin,
    CallEnd,
    Reasoning,
    Text,
)
from openai_compat.output.fold import Answer, Call, fold
from openai_compat.output.stage import Parsing
from tests.support.tokenizers import served_model

TOKENIZER = served_model().tokenizer
STOP = Finish(FinishReason.STOP, 0)
LENGTH = Finish(FinishReason.LENGTH, 0)


class Marked:
    """A parser of a toy syntax: `^` reasons, `|` answers, `#` begins a call, `;` ends it."""

    def __init__(self):
        self._kind, self._calls = "|", 0

    def feed(self, text):
        return [delta for character in text if (delta := self._read(character)) is not None]

    def finish(self):
        return [Text("rest")] if self._kind == "^" else []

    def _read(self, character):
        if character in "^|":
            self._kind = character
            return None
        if character == "#":
            self._kind, self._calls = character, self._calls + 1
            return CallBegin(self._calls - 1, "f")
        if self._kind == "#":
            if character == ";":
                self._kind = "|"
                return CallEnd(self._calls - 1)
            return CallArguments(self._calls - 1, character)
        return Reasoning(character) if self._kind == "^" else Text(character)


def choice(*, stops=(), calls_end=Ending.TOOL_CALLS, **parsing):
    values = {"parser": Marked(), "call_id": "call-{}".format, **parsing}
    return Choice(TOKENIZER.detokenizer(), stops, Parsing(**values), calls_end=calls_end)


def run(subject, text, finish=STOP, *, cut=1):
    """Feed the text's tokens, `cut` at a time; the joined piece."""
    tokens = TOKENIZER.encode(text, special=False)
    pieces = []
    for start in range(0, len(tokens), cut):
        last = start + cut >= len(tokens)
        some = tokens[start : start + cut]
        pieces.append(subject.feed(TokenEvent(0, some, 0, finish=finish if last else None)))
        if subject.finish is not None:
            break
    return joined(pieces)


def test_parts_add_up_to_an_answer():
    """Reasoning, content and calls, in whatever order they came."""
    subject = choice(counts_reasoning=True)
    assert fold(run(subject, "^why|so#{};#[]").parts) == Answer(
        "so", "why", [Call("call-0", "f", "{}", ended=True), Call("call-1", "f", "[]")]
    )
    assert subject.finish is Ending.TOOL_CALLS


def test_results_do_not_depend_on_how_tokens_were_grouped():
    """Text, counts and ends; with a single call the rest of the same event is dropped."""
    results = []
    for cut in (1, 2, 3, 100):
        subject = choice(counts_reasoning=True, parallel=False)
        answer = fold(run(subject, "^why not|so#{1};#{2};more", cut=cut).parts)
        results.append((answer, subject.completion_tokens, subject.reasoning_tokens))
        assert subject.finish is Ending.TOOL_CALLS
    assert results == results[:1] * 4
    assert results[0][0].calls == [Call("call-0", "f", "{1}", ended=True)]


def test_a_call_of_a_named_tool_may_end_with_stop():
    """As OpenAI ends it."""
    subject = choice(calls_end=Ending.STOP)
    run(subject, "#{};")
    assert subject.finish is Ending.STOP


def test_a_cut_call_ends_with_length():
    """The client must know that its arguments are not whole."""
    subject = choice()
    assert fold(run(subject, "#{", LENGTH).parts).calls == [Call("call-0", "f", "{")]
    assert subject.finish is Ending.LENGTH


def test_a_call_that_a_stop_string_cut_ends_with_stop():
    """Nobody should run it; a call that was whole by then is one."""
    subject = choice(stops=("END",))
    assert fold(run(subject, "#{1};#{2END").parts).calls[1] == Call("call-1", "f", "{2")
    assert subject.finish is Ending.STOP
    subject = choice(stops=("END",))
    run(subject, "#{1};END")
    assert subject.finish is Ending.TOOL_CALLS


def test_what_the_parser_holds_back_comes_at_the_end():
    """Also where a stop string ended the text."""
    assert fold(run(choice(), "^a").parts).content == "rest"
    ended = choice(stops=("END",))
    assert fold(run(ended, "^aENDb").parts) == Answer("rest", "a", [])
    assert ended.finish is Ending.STOP


def test_an_id_of_the_model_itself_is_kept():
    """Some syntaxes write ids."""

    class Own(Marked):
        def _read(self, character):
            return CallBegin(0, "f", "functions.f:0") if character == "#" else None

    assert fold(run(choice(parser=Own()), "#").parts).calls[0].id == "functions.f:0"


def test_reasoning_that_the_prompt_opened_counts_from_the_first_token():
    """Held back or not."""
    subject = choice(counts_reasoning=True, thinking=True)
    run(subject, "|a")
    assert subject.reasoning_tokens == 1
