"""Which syntax a chat template shows."""

from pathlib import Path

import pytest

from openai_compat.output.registry import detect, reasoning_syntaxes, tool_syntaxes

ROOT = Path(__file__).parents[4]
BAR = "\uff5c"

# What the templates of a family have of their own, in the quotes and escapes they write it with.
TEMPLATES = {
    "qwen 2.5": (
        r"{{- '<tool_call>\n{\"name\": <function-name>, \"arguments\": <args>}\n</tool_call>' }}",
        ("hermes", None),
    ),
    "qwen 3": (
        (
            r"""{{- '<tool_call>\n{"name": "' }}{{- '", "arguments": ' }}{{- '}\n</tool_call>' }}"""
            r"{%- set content = content.split('</think>')[-1].lstrip('\n') %}"
        ),
        ("hermes", "think"),
    ),
    "qwen 3 coder": (
        (
            r"{{- '\n<tool_call>\n<function=' + name + '>\n' }}{{- '<parameter=' + key + '>\n' }}"
            r"{{- '</tool_call>' }}"
        ),
        ("xml", None),
    ),
    "llama 3.1": (
        (
            """{{- "Environment: ipython\n" }}{{- '{"name": "' + call.name + '", ' }}"""
            """{{- '"parameters": ' }}{{- "<|python_tag|>" + call.name }}"""
        ),
        ("llama3_json", None),
    ),
    "llama 4, python": (
        r"""{{- "ipython" }}{{ "[func_name1(param1=value1)]" }}{{- '"parameters": {"name": ' }}""",
        ("pythonic", None),
    ),
    "mistral": ("{{- '[TOOL_CALLS]' + name + '[ARGS]' + arguments }}", ("mistral", None)),
    "magistral": (
        "{{- '[THINK]' + t + '[/THINK]' }}{{- '[TOOL_CALLS]' + name }}",
        ("mistral", "mistral"),
    ),
    "deepseek r1": (
        f"{{{{'<{BAR}tool▁calls▁begin{BAR}>f<{BAR}tool▁sep{BAR}>' + '```json' + '</think>'}}}}",
        ("deepseek_v3", "think"),
    ),
    "deepseek v3.1": (
        f"{{{{'<{BAR}tool▁calls▁begin{BAR}>' + name + '<{BAR}tool▁sep{BAR}>' + '</think>'}}}}",
        ("deepseek_v31", "think"),
    ),
    "glm 4.5": (
        (
            "{{ '<tool_call>' + name }}<arg_key>{{ k }}</arg_key><arg_value>{{ v }}</arg_value>"
            "</tool_call><think></think>"
        ),
        ("glm", "think"),
    ),
    "kimi k2": (
        "<|tool_calls_section_begin|><|tool_call_begin|>{{ id }}<|tool_call_argument_begin|>",
        ("kimi", None),
    ),
    "gpt-oss": (
        '{{- "<|start|>assistant<|channel|>analysis<|message|>" + thinking + "<|end|>" }}',
        ("harmony", "harmony"),
    ),
    "chatml": ("{{ '<|im_start|>' + role + '\\n' + content + '<|im_end|>' }}", (None, None)),
    "seed": ("<seed:tool_call><function=f><parameter=a></seed:think>", (None, None)),
    "two at once": (
        "[TOOL_CALLS] <|tool_calls_section_begin|><|tool_call_argument_begin|>",
        (None, None),
    ),
}


@pytest.mark.parametrize(("source", "found"), TEMPLATES.values(), ids=TEMPLATES)
def test_a_template_shows_its_syntaxes(source, found):
    """Marks of one family are enough; marks of none, or of two, say nothing."""
    assert detect(source) == found


def test_the_bundled_model_writes_hermes_calls_and_does_not_think():
    """The template that comes with us is told apart without a flag."""
    template = ROOT / "engines/bundled/penstock_tiny/chat_template.jinja"
    assert detect(template.read_text()) == ("hermes", None)


def test_every_detected_name_is_a_syntax():
    """Detection never names what the registry does not have."""
    for _, (tools, reasoning) in TEMPLATES.values():
        assert tools is None or tools in tool_syntaxes()
        assert reasoning is None or reasoning in reasoning_syntaxes()
