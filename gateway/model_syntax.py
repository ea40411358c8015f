"""Which syntaxes a served model writes in: as the settings name them, or as its template shows."""

from engines.errors import ModelRejected
from engines.text.template import ChatTemplate
from openai_compat.output.model_syntax import ModelSyntax
from openai_compat.output.registry import detect, reasoning_syntaxes, tool_syntaxes

AUTO = "auto"
NONE = "none"


def choose_syntax(template: ChatTemplate | None, *, tools: str, reasoning: str) -> ModelSyntax:
    """The model's syntaxes. Raises ModelRejected for two that cannot stand together."""
    seen_tools, seen_reasoning = detect(template.source) if template else (None, None)
    tool_name = seen_tools if tools == AUTO else tools
    reasoning_name = seen_reasoning if reasoning == AUTO else reasoning
    chosen = ModelSyntax(
        reasoning=reasoning_syntaxes().get(reasoning_name or NONE),
        tools=tool_syntaxes().get(tool_name or NONE),
    )
    if chosen.tools is not None and (chosen.tools.name == "harmony") and chosen.reasoning is None:
        raise ModelRejected(
            "--tool-parser harmony needs --reasoning-parser harmony: its messages cannot be parted"
        )
    return chosen
