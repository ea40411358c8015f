"""The syntaxes one model writes in: its reasoning, its tool calls, either of which may be none."""

from collections.abc import Sequence
from dataclasses import dataclass

from openai_compat.output.delta import OutputParser
from openai_compat.output.syntax import Function, ReasoningSyntax, ToolSyntax, compose


@dataclass(frozen=True, slots=True)
class ModelSyntax:
    """Chosen by flag, or found in the model's chat template. Without any, all text is content."""

    reasoning: ReasoningSyntax | None = None
    tools: ToolSyntax | None = None

    @property
    def specials(self) -> frozenset[str]:
        """Markers that a tokenizer may hold as special tokens, which decoding would leave out."""
        found = frozenset[str]()
        for syntax in (self.reasoning, self.tools):
            if syntax is not None:
                found |= frozenset(syntax.specials)
        return found

    def opens_reasoning(self, prompt: str) -> bool:
        """Whether a prompt text ends inside of the reasoning part."""
        return self.reasoning is not None and prompt.rstrip().endswith(self.reasoning.begin)

    def parser(self, functions: Sequence[Function], *, thinking: bool) -> OutputParser | None:
        """What takes an answer apart, or None where there is nothing to find."""
        tools = self.tools if functions or self.joint else None
        if self.reasoning is None and tools is None:
            return None
        return compose(self.reasoning, tools, functions, open=thinking)

    @property
    def joint(self) -> bool:
        """Whether one syntax writes both: its parser is needed even where no call is allowed."""
        both = (self.reasoning, self.tools)
        return None not in both and len({syntax.name for syntax in both if syntax is not None}) == 1
