"""A model's chat template: messages to the prompt text, as transformers' apply_chat_template.

Three failures leave `render`: `TemplateRefused`, when the template itself objects to the
conversation by `raise_exception` (the client's fault, with the template's own words);
`TemplateOverrun`, when what it makes of the conversation is larger than any prompt; and
`TemplateBroken`, for everything else (the model's fault: the client can do nothing about it).
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import jinja2
import jinja2.meta

from engines.errors import ModelRejected
from engines.text.model_files import read_object, read_text
from engines.text.sandbox import (
    ClientFault,
    TemplateSandbox,
    TextOverrun,
    check_text,
    with_budget,
)

Message = Mapping[str, object]

_PROVIDED = frozenset(
    {"messages", "tools", "documents", "add_generation_prompt", "strftime_now", "raise_exception"}
)

# Marks that no template contains, and a conversation with system messages where a careless
# template loses or refuses them.
_MARKS = ("pstk-sys-1", "pstk-sys-2", "pstk-sys-3")
_SCATTERED_SYSTEM: tuple[Message, ...] = (
    {"role": "system", "content": _MARKS[0]},
    {"role": "system", "content": _MARKS[1]},
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b"},
    {"role": "system", "content": _MARKS[2]},
    {"role": "user", "content": "c"},
)


class TemplateRefused(Exception):  # noqa: N818 - what happened, as at every call site
    """The template raised an error of its own about this conversation."""


class TemplateBroken(Exception):  # noqa: N818
    """The template failed on a conversation it should have rendered, or ran into a ceiling."""


class TemplateOverrun(TemplateBroken):
    """The text became larger than any prompt may be: a shorter conversation would do."""


class ChatTemplate:
    """One compiled template. Immutable once made; safe to share between threads."""

    def __init__(self, source: str, named_tokens: Mapping[str, str]) -> None:
        self._named_tokens = dict(named_tokens)
        self.source = source
        sandbox = TemplateSandbox()
        try:
            self._template = sandbox.from_string(source)
            asked = jinja2.meta.find_undeclared_variables(sandbox.parse(source))
        except (jinja2.TemplateError, RecursionError) as error:
            raise ModelRejected(f"the chat template does not compile: {error}") from error
        # What a client may set: variables the template reads and nobody else provides.
        self.variables = frozenset(asked) - _PROVIDED - set(sandbox.globals) - set(named_tokens)
        self.keeps_scattered_system = self._keeps(_SCATTERED_SYSTEM, _MARKS)

    @classmethod
    def from_directory(cls, path: Path, named_tokens: Mapping[str, str]) -> "ChatTemplate | None":
        """The directory's default template, or None where it has none.

        chat_template.jinja wins over tokenizer_config.json, as in transformers.
        """
        file = path / "chat_template.jinja"
        if file.exists():
            return cls(read_text(file), named_tokens)
        file = path / "tokenizer_config.json"
        source = read_object(file, required=False).get("chat_template")
        if isinstance(source, list):
            source = _default_of(source, file)
        if source is None:
            return None
        if not isinstance(source, str):
            raise ModelRejected(f"{file}: chat_template must be a string or a list of named ones")
        return cls(source, named_tokens)

    def render(
        self,
        messages: Sequence[Message],
        *,
        now: int,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, object]] | None = None,
        extra: Mapping[str, object] = MappingProxyType({}),
    ) -> str:
        """The prompt text; `now` (unix seconds, UTC) is the time `strftime_now` tells.

        `extra` are values for some of `variables`.
        """
        variables = with_budget(
            {
                **extra,
                **self._named_tokens,
                "messages": messages,
                "tools": tools,
                "documents": None,
                "add_generation_prompt": add_generation_prompt,
                "strftime_now": datetime.fromtimestamp(now, UTC).strftime,
            }
        )
        try:
            return self._collect(variables)
        except ClientFault as error:
            raise TemplateRefused(str(error)) from error
        except TextOverrun as error:
            raise TemplateOverrun(str(error)) from error
        except Exception as error:  # a template may raise whatever Python raises
            raise TemplateBroken(f"{type(error).__name__}: {error}") from error

    def _collect(self, variables: dict[str, object]) -> str:
        pieces, size = [], 0
        for piece in self._template.generate(variables):
            pieces.append(piece)
            size += len(piece)
            check_text(size)
        return "".join(pieces)

    def _keeps(self, messages: Sequence[Message], marks: Sequence[str]) -> bool:
        try:
            text = self.render(messages, now=0)
        except (TemplateRefused, TemplateBroken):
            return False
        return all(mark in text for mark in marks)


def _default_of(named: Sequence[object], file: Path) -> object:
    """The template called `default` of a list of `{"name", "template"}` objects."""
    for entry in named:
        if isinstance(entry, dict) and entry.get("name") == "default":
            return entry.get("template")
    raise ModelRejected(f"{file}: chat_template is a list without one named `default`")
