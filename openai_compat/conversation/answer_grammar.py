"""Lark for one model's answers: texts, special tokens, free text up to a marker, reasoning."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from openai_compat.output import lark
from openai_compat.output.syntax import JointSyntax, LarkFragment
from openai_compat.served import ServedModel

ANY = r"/(?s:.*)/"
_LINE_ENDS = r"/\n{1,2}/"


@dataclass(slots=True)
class Lark:
    """The rules of a grammar while it is written; every name is used once.

    Special tokens are no text to llguidance: what is to be one is named by its number. It takes
    every added token of the form `<...>` as special, whatever the tokenizer says.
    """

    model: ServedModel
    rules: list[str] = field(default_factory=list)
    subgrammars: dict[str, str] = field(default_factory=dict)

    def rule(self, name: str, expression: str) -> str:
        self.rules.append(f"{name}: {expression}")
        return name.partition("[")[0]

    def special(self, text: str) -> bool:
        """Whether the text is a token that grammars know by number only."""
        tokenizer = self.model.tokenizer
        token = tokenizer.token_id(text)
        if token is None or token not in tokenizer.added_tokens:
            return False
        return token in tokenizer.special_tokens or (text.startswith("<") and text.endswith(">"))

    def number(self, text: str) -> int:
        """The number of a special token."""
        token = self.model.tokenizer.token_id(text)
        if token is None:
            raise KeyError(text)
        return token

    def token(self, text: str) -> str:
        return f"<[{self.number(text)}]>"

    def marker(self, text: str) -> str:
        """One marker, as token or as text."""
        return self.token(text) if self.special(text) else lark.quoted(text)

    def fragment(self, fragment: LarkFragment) -> str:
        """Takes over the rules of a calls section; its start."""
        numbered = fragment.numbered(self.number)
        self.rules.append(numbered.rules.rstrip("\n"))
        return numbered.start

    def text_without(self, name: str, excluded: Sequence[str], *, opening: str = "") -> str:
        """A rule of free text with none of these in it, which may not begin with `opening`."""
        self.rule(name.upper(), f"{ANY}{without(excluded, opening=opening)}")
        return self.rule(name, name.upper())

    def text_until(self, name: str, marker: str) -> str:
        """A rule of free text and the marker, which ends it where it first comes."""
        if self.special(marker):
            free = self.text_without(f"{name}_text", (marker,))
            return self.rule(name, f"{free} {self.token(marker)}")
        return self.rule(f"{name}[lazy]", f"/(?s:.*){escaped(marker)}/")

    def text_beside(self, name: str, trigger: str) -> str:
        """A rule of free text beside which the trigger, as text, begins something else.

        Lexemes are as long as can be: what could still become the trigger is one of its beginnings,
        and the trigger itself is longer than these. That holds where its first character comes in
        it once; where it does not, free text does without that character.
        """
        first = escaped(trigger[0])
        self.rule(f"{name.upper()}_PLAIN", f"/[^{first}]+/")
        pieces = f"{name.upper()}_PLAIN"
        if trigger.count(trigger[0]) == 1:
            begun = "|".join(escaped(trigger[:end]) for end in range(len(trigger) - 1, 0, -1))
            self.rule(f"{name.upper()}_BEGUN", f"/{begun}/")
            pieces += f" | {name.upper()}_BEGUN"
        return self.rule(name, f"({pieces})*")

    def reasoning(self, *, opened: bool) -> str:
        """An expression for the reasoning before the answer; empty for models that have none."""
        syntax = self.model.syntax.reasoning
        if syntax is None:
            return ""
        joint = is_joint(syntax)
        ended = self.text_until("reasoning_text", syntax.end)
        if joint:  # the next message of the turn
            after = f'{self.marker("<|start|>")} "assistant"'
            begin = f'{self.marker("<|channel|>")} "analysis" {self.marker("<|message|>")}'
        else:
            after = f"{self.rule('reasoning_after', _LINE_ENDS)}?"
            begin = self.marker(syntax.begin)
        if opened:
            return f"{ended} {after}"
        return "(" + self.rule("reasoning", f"{begin} {ended} {after}") + ")?"

    def content(self, expression: str) -> str:
        """What stands for the content where the syntax has a place of its own for it."""
        if is_joint(self.model.syntax.tools or self.model.syntax.reasoning):
            final = f'{self.marker("<|channel|>")} "final" {self.marker("<|message|>")}'
            return f"{final} {expression}"
        return expression

    def source(self, start: str) -> str:
        """The whole grammar, as llguidance takes it."""
        text = "\n".join([f"start: {start}", *self.rules]) + "\n"
        if not self.subgrammars:
            return text
        inner = [{"name": name, "lark_grammar": own} for name, own in self.subgrammars.items()]
        return json.dumps({"grammars": [{"lark_grammar": text}, *inner]}, ensure_ascii=False)


def without(excluded: Sequence[str], *, opening: str = "") -> str:
    """What narrows a terminal to texts with none of these in them, nor one of `opening` first.

    One negation for all: each further one multiplies what the lexer has to build.
    """
    outside = []
    if excluded:
        outside.append("(?s:.*)(" + "|".join(escaped(text) for text in excluded) + ")(?s:.*)")
    if opening:
        outside.append(rf"\s*[{opening}](?s:.*)")
    return f" & ~/{'|'.join(outside)}/" if outside else ""


def is_joint(syntax: object) -> bool:
    """Whether reasoning, content and calls are messages of one kind of turn."""
    return isinstance(syntax, JointSyntax)


def escaped(text: str) -> str:
    """A text as part of a regular expression between slashes."""
    return re.escape(text).replace("/", r"\/").replace("\\\n", r"\n")
