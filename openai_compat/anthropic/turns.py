"""The messages of a request as turns that alternate, and as chat templates take them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from openai_compat.anthropic.content import (
    ROLES,
    Block,
    Called,
    Result,
    Said,
    Thought,
    objects,
    read_content,
)
from openai_compat.anthropic.notes import Ignored
from openai_compat.conversation.ask import Message
from openai_compat.errors import RequestRejected
from openai_compat.fields import Fields, wrong

MAX_MESSAGES = 2048


@dataclass(slots=True)
class Turn:
    """What one side said before the other did; `param` is its first message."""

    role: str
    param: str
    blocks: list[Block] = field(default_factory=list)

    def of(self, kind: type[Called] | type[Result]) -> dict[str, str]:
        """The ids of its calls or results, with the places they stand in."""
        return {block.id: block.param for block in self.blocks if isinstance(block, kind)}


@dataclass(frozen=True, slots=True)
class Turns:
    """The messages for the template. With `prefill`, the last one is to be continued."""

    messages: tuple[Message, ...]
    prefill: bool


def read_turns(fields: Fields, ignored: Ignored) -> Turns:
    """The conversation as Anthropic reads it; raises `RequestRejected` naming the place.

    Messages of one role in a row are one turn; the first is the user's; calls are answered in the
    next turn, before anything else is said in it. Anthropic's servers refuse what these rules do.
    """
    turns = _merged(fields, ignored)
    spoken = [turn for turn in turns if turn.role != "system"]
    if not spoken or spoken[0].role != "user":
        param = spoken[0].param + ".role" if spoken else "messages"
        raise RequestRejected("The first message must be the user's.", param=param)
    _check_calls(spoken)
    last = turns[-1]
    prefill = last.role == "assistant"
    if prefill and not any(_shown(block) for block in last.blocks):
        turns.pop()  # an empty last message asks for nothing
        prefill = False
    if prefill:
        _check_prefill(last)
    names = {
        block.id: block.name for turn in turns for block in turn.blocks if isinstance(block, Called)
    }
    messages = tuple(message for turn in turns for message in _messages(turn, names))
    return Turns(messages, prefill)


def _merged(fields: Fields, ignored: Ignored) -> list[Turn]:
    turns: list[Turn] = []
    given = fields.raw("messages")
    if not isinstance(given, list) or not given:
        raise wrong("messages", f"an array of 1 to {MAX_MESSAGES} messages", given)
    for message in objects(fields, "messages", MAX_MESSAGES):
        role = message.one_of("role", ROLES)
        if role is None:
            raise wrong(message.param("role"), "one of " + ", ".join(ROLES), None)
        ignored.note(message, ("role", "content"))
        if not turns or turns[-1].role != role:
            turns.append(Turn(role, message.path))
        turns[-1].blocks += read_content(message, role, ignored)
    return turns


def _check_calls(turns: Sequence[Turn]) -> None:
    """Each call has its result in the next turn, and each result its call in the one before."""
    open_calls: dict[str, str] = {}
    for turn in turns:
        results = turn.of(Result)
        for id_, param in results.items():
            if id_ not in open_calls:
                raise RequestRejected(
                    f"'{param}.tool_use_id' answers no call of the turn before it.",
                    param=f"{param}.tool_use_id",
                )
        for id_, param in open_calls.items():
            if id_ not in results:
                raise _unanswered(param)
        _check_order(turn)
        open_calls = turn.of(Called)
    for param in open_calls.values():
        raise _unanswered(param)


def _unanswered(param: str) -> RequestRejected:
    return RequestRejected(f"'{param}' is a call without a result in the next turn.", param=param)


def _check_order(turn: Turn) -> None:
    kinds = [isinstance(block, Result) for block in turn.blocks]
    if kinds != sorted(kinds, reverse=True):
        late = [block.param for block in turn.blocks if isinstance(block, Result)][-1]
        raise RequestRejected(
            f"'{late}' comes after other content; results stand first in their turn.", param=late
        )


def _shown(block: Block) -> bool:
    return not isinstance(block, Said) or bool(block.text)


def _check_prefill(turn: Turn) -> None:
    final = turn.blocks[-1]
    if not isinstance(final, Said) or final.text != final.text.rstrip():
        raise RequestRejected(
            "A last message of the assistant is continued: it must end with text, and not with"
            " white space.",
            param=final.param,
        )


def _messages(turn: Turn, names: dict[str, str]) -> Iterator[Message]:
    for block in turn.blocks:
        if isinstance(block, Result):
            yield {
                "role": "tool",
                "tool_call_id": block.id,
                "name": names[block.id],
                "content": block.text,
            }
    texts = [block.text for block in turn.blocks if isinstance(block, Said)]
    if turn.role == "assistant":
        yield _assistant(turn, "\n".join(texts))
    elif texts or not turn.of(Result):
        yield {"role": turn.role, "content": "\n".join(texts)}


def _assistant(turn: Turn, text: str) -> Message:
    message: dict[str, object] = {"role": "assistant", "content": text}
    thoughts = [block.text for block in turn.blocks if isinstance(block, Thought) and block.text]
    if thoughts:
        # gpt-oss templates read `thinking`; transformers fills both.
        message["reasoning_content"] = message["thinking"] = "\n".join(thoughts)
    calls = [block for block in turn.blocks if isinstance(block, Called)]
    if calls:
        message["tool_calls"] = [_call(block) for block in calls]
    return message


def _call(block: Called) -> dict[str, object]:
    function = {"name": block.name, "arguments": block.input}
    return {"id": block.id, "type": "function", "function": function}
