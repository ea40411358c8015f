"""Our rendering against transformers' own, text for text."""

import itertools
import json

import pytest

from engines.text.template import ChatTemplate, TemplateRefused
from tests.support.tokenizers import BOS, CHATML, EOS, byte_level

transformers = pytest.importorskip("transformers")

LLAMA3 = """{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'
        + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

MISTRAL = """{{ bos_token }}{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{% endif %}
{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}
{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}
{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}
{% endfor %}"""

GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}
{{ raise_exception('System role not supported') }}{% endif %}
{% for message in messages %}
    {% if (message['role'] == 'assistant') %}{% set role = 'model' %}
    {% else %}{% set role = message['role'] %}{% endif %}
    {{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}
{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}"""

QWEN_TOOLS = """{%- if tools %}
    {{- '<|im_start|>system\\n# Tools\\n' }}
    {%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
    {{- "<|im_end|>\\n" }}
{%- endif %}
{%- set ns = namespace(multi=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi and message.role == "user" %}
        {%- set ns.multi = false %}{%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == "tool" and loop.previtem.role != "tool" %}{%- continue %}{%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' ~ message.content ~ '<|im_end|>' + '\\n' }}
    {%- if loop.index0 == ns.last and loop.last %}{{- 'last\\n' }}{%- endif %}
    {%- if loop.length > 40 %}{%- break %}{%- endif %}
{%- endfor %}
{%- macro tail(x, sep=', ') %}{{ x|join(sep) }}{% endmacro %}
{{- tail(messages|map(attribute='role')|list) }}
{{- {'a': 'é<>&"', 'n': [1, 2]} | tojson(indent=2) }}"""

GENERATION = """{% for message in messages %}
{% if message.role == 'assistant' %}{% generation %}{{ message.content }}{% endgeneration %}
{% else %}{{ '%-8s|' % message.role }}{{ message.content | indent(2) }}{% endif %}
{% set x %}{{ loop.index }}.{% endset %}{{ x * 2 }}{{ (x ~ 'a').ljust(6) }}
{% endfor %}"""

TEMPLATES = {
    "chatml": CHATML,
    "llama3": LLAMA3,
    "mistral": MISTRAL,
    "gemma": GEMMA,
    "qwen": QWEN_TOOLS,
    "generation": GENERATION,
}
CONVERSATIONS = {
    "one": [{"role": "user", "content": "hi"}],
    "turns": [
        {"role": "user", "content": "  née 日本 <b>&\"' \n"},
        {"role": "assistant", "content": "line\n\nline {{ x }} {% if %}"},
        {"role": "user", "content": ""},
    ],
    "system": [
        {"role": "system", "content": " be brief "},
        {"role": "user", "content": "<|im_end|>"},
    ],
    "tool": [
        {"role": "user", "content": "a"},
        {"role": "tool", "content": "b", "name": "f"},
        {"role": "tool", "content": "c"},
    ],
}
TOOLS = [{"type": "function", "function": {"name": "f", "description": "née <x>"}}]


@pytest.fixture(scope="module")
def theirs():
    """Transformers' own tokenizer over our tiny one."""
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=byte_level(), bos_token=BOS, eos_token=EOS
    )


def expected(tokenizer, template, conversation, **values):
    """Their text, or the message they raise."""
    try:
        return tokenizer.apply_chat_template(
            conversation, chat_template=template, tokenize=False, **values
        )
    except Exception as error:  # noqa: BLE001 - whatever the library raises is its answer
        return f"raised: {error}"


def ours(template, conversation, **values):
    try:
        return ChatTemplate(template, {"bos_token": BOS, "eos_token": EOS}).render(
            conversation, now=0, **values
        )
    except TemplateRefused as refusal:
        return f"raised: {refusal}"


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("prompt", [True, False])
@pytest.mark.parametrize("tools", [None, TOOLS], ids=["plain", "tools"])
def test_the_rendered_text_is_transformers_own(theirs, template, conversation, prompt, tools):
    """Letter for letter, whitespace and refusals included."""
    values = {"add_generation_prompt": prompt, "tools": tools}
    source, messages = TEMPLATES[template], CONVERSATIONS[conversation]
    assert ours(source, messages, **values) == expected(theirs, source, messages, **values)


def test_the_bundled_template_renders_as_in_transformers(theirs, bundled):
    """The template we ship is one more case."""
    source = (bundled / "chat_template.jinja").read_text()
    for messages, tools in itertools.product(CONVERSATIONS.values(), (None, TOOLS)):
        values = {"add_generation_prompt": True, "tools": tools}
        assert ours(source, messages, **values) == expected(theirs, source, messages, **values)


def test_tokens_of_a_chat_are_transformers_own(tmp_path, bundled):
    """Special tokens of the template, and those a user spells, become the same ids."""
    from engines.text.tokenizer import Tokenizer  # noqa: PLC0415 - beside its rival

    rival = transformers.AutoTokenizer.from_pretrained(bundled)
    tokenizer = Tokenizer.from_directory(bundled)
    template = ChatTemplate.from_directory(bundled, tokenizer.named_tokens)
    for messages in CONVERSATIONS.values():
        text = template.render(messages, now=0)
        theirs = rival.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        assert tokenizer.encode(text, special=False) == theirs
    assert tokenizer.encode("née hello", special=True) == rival("née hello")["input_ids"]
    named = json.loads((bundled / "tokenizer_config.json").read_text())
    assert tokenizer.token_id(named["eos_token"]) == rival.eos_token_id
