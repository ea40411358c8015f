"""Input items: every shape that clients send, read into the one shape that is stored and listed.

A string is a user message; a message may come without a type (the "easy" one) or with its content
as a string; an item may be a reference to one that the store has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from openai_compat.errors import NotFound, RequestRejected
from openai_compat.fields import Fields, describe, wrong
from openai_compat.responses.ids import input_id
from openai_compat.unsupported import Neutral, refuse_unsupported, unsupported

MAX_ITEMS = 2048
_MAX_ID_CHARS = 256
_MAX_NAME_CHARS = 64
_STATUSES = ("in_progress", "completed", "incomplete")
_ROLES = ("user", "assistant", "system", "developer")
_PHASES = ("commentary", "final_answer")

Item = dict[str, object]

_CALL_NEUTRAL: Neutral = {
    "caller": ({"type": "direct"},),
    "namespace": (),
    "async": (False,),
    "created_by": (),
}
_PART_NEUTRAL: Neutral = {"prompt_cache_breakpoint": (), "annotations": ([],)}
_OTHER_PARTS = ("input_image", "input_file", "input_audio", "computer_screenshot", "refusal")


@dataclass(slots=True)
class ItemReader:
    """Reads the items of one request. `stem` names those that come without an id."""

    stem: str
    named: Mapping[str, Item]  # stored items by their ids
    ignored: dict[str, None] = field(default_factory=dict)

    def read(self, fields: Fields) -> list[Item]:
        """The items of `input`. Raises `RequestRejected` naming the place."""
        given = fields.raw("input")
        if isinstance(given, str):
            return [self._message(Fields({"role": "user", "content": given}, "input"), 0)]
        if not isinstance(given, list) or not 0 < len(given) <= MAX_ITEMS:
            raise wrong("input", f"a string or an array of 1 to {MAX_ITEMS} items", given)
        return [self._item(value, place) for place, value in enumerate(given)]

    def _item(self, value: object, place: int) -> Item:
        param = f"input[{place}]"
        if not isinstance(value, dict):
            raise wrong(param, "an object", value)
        item = Fields(value, param)
        readers = {
            "message": self._message,
            "item_reference": self._referred,
            "function_call": self._call,
            "function_call_output": self._call_output,
            "reasoning": self._reasoning,
        }
        kind = _kind(item)
        if kind not in readers:
            raise unsupported(item.param("type"), " with this value")
        return readers[kind](item, place)

    def _message(self, item: Fields, place: int) -> Item:
        role = item.raw("role")
        if not isinstance(role, str) or role not in _ROLES:
            raise wrong(item.param("role"), "one of " + ", ".join(_ROLES), role)
        self._note(item, ("content", "phase", "role"))
        phase = item.one_of("phase", _PHASES)
        written = "output_text" if role == "assistant" else "input_text"
        texts = self._texts(item, "content", (written, "text"))
        message = {
            **self._head(item, "message", "msg", place),
            "role": role,
            "content": [_part(written, text) for text in texts],
        }
        return message if phase is None else {**message, "phase": phase}

    def _call(self, item: Fields, place: int) -> Item:
        refuse_unsupported(item, _CALL_NEUTRAL)
        self._note(item, ("arguments", "call_id", "name", *_CALL_NEUTRAL))
        return {
            **self._head(item, "function_call", "fc", place),
            "arguments": needed_text(item, "arguments"),
            "call_id": needed_text(item, "call_id", _MAX_ID_CHARS),
            "name": needed_text(item, "name", _MAX_NAME_CHARS),
        }

    def _call_output(self, item: Fields, place: int) -> Item:
        refuse_unsupported(item, _CALL_NEUTRAL)
        self._note(item, ("call_id", "name", "output", *_CALL_NEUTRAL))
        item.text("name", _MAX_NAME_CHARS)  # the call tells it
        texts = self._texts(item, "output", ("input_text",))
        plain = isinstance(item.raw("output"), str)
        return {
            **self._head(item, "function_call_output", "fco", place),
            "call_id": needed_text(item, "call_id", _MAX_ID_CHARS),
            "output": texts[0] if plain else [_part("input_text", text) for text in texts],
        }

    def _reasoning(self, item: Fields, place: int) -> Item:
        refuse_unsupported(item, {"encrypted_content": ()})
        self._note(item, ("content", "encrypted_content", "summary"))
        summary = self._texts(item, "summary", ("summary_text",), optional=True)
        content = self._texts(item, "content", ("reasoning_text",), optional=True)
        return {
            **self._head(item, "reasoning", "rs", place),
            "summary": [{"type": "summary_text", "text": text} for text in summary],
            "content": [{"type": "reasoning_text", "text": text} for text in content],
        }

    def _referred(self, item: Fields, _place: int) -> Item:
        self._note(item, ())
        found = self.named.get(needed_text(item, "id", _MAX_ID_CHARS))
        if found is None:
            raise NotFound(
                "There is no such item: it was never stored, has expired, or is not yours.",
                code="item_not_found",
                param=item.param("id"),
            )
        return found

    def _head(self, item: Fields, kind: str, prefix: str, place: int) -> Item:
        given = item.text("id", _MAX_ID_CHARS)
        status = item.one_of("status", _STATUSES)
        return {
            "id": given or input_id(prefix, self.stem, place),
            "type": kind,
            "status": status or "completed",
        }

    def _texts(
        self, item: Fields, name: str, kinds: Sequence[str], *, optional: bool = False
    ) -> list[str]:
        value, param = item.raw(name), item.param(name)
        if isinstance(value, str) and not optional:
            return [value]
        if value is None and optional:
            return []
        if not isinstance(value, list):
            raise wrong(param, "a string or an array of text parts", value)
        return [self._text(part, kinds, f"{param}[{at}]") for at, part in enumerate(value)]

    def _text(self, value: object, kinds: Sequence[str], param: str) -> str:
        if not isinstance(value, dict):
            raise wrong(param, "an object", value)
        part = Fields(value, param)
        kind = part.raw("type")
        if kind not in kinds:
            if kind in _OTHER_PARTS:
                raise unsupported(f"{param}.type")
            raise RequestRejected(
                f"Invalid value for '{param}.type': expected '{kinds[0]}', got {describe(kind)}.",
                param=f"{param}.type",
            )
        refuse_unsupported(part, _PART_NEUTRAL)
        self._note(part, ("text", "logprobs", *_PART_NEUTRAL))
        return needed_text(part, "text")

    def _note(self, item: Fields, known: Sequence[str]) -> None:
        """Remember the names nobody knows, without the places they stand at."""
        for name in item.unknown((*known, "id", "status", "type")):
            self.ignored["input." + name.rpartition(".")[2]] = None


def _kind(item: Fields) -> str:
    """The type of an item; messages and references may come without one."""
    kind = item.raw("type")
    if isinstance(kind, str):
        return kind
    if kind is None and item.raw("role") is not None:
        return "message"
    if kind is None and item.raw("id") is not None:
        return "item_reference"
    raise wrong(item.param("type"), "the type of an item", kind)


def needed_text(fields: Fields, name: str, max_chars: int | None = None) -> str:
    """A string that must be there."""
    text = fields.text(name, max_chars)
    if text is None:
        raise wrong(fields.param(name), "a string", None)
    return text


def _part(kind: str, text: str) -> Mapping[str, object]:
    if kind == "output_text":
        return {"type": kind, "annotations": [], "logprobs": [], "text": text}
    return {"type": kind, "text": text}
