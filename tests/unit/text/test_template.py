"""Chat templates: found, rendered as transformers renders them, and failing in two ways."""

import json
from datetime import UTC, datetime

import pytest

from engines.errors import ModelRejected
from engines.text.template import ChatTemplate, TemplateBroken, TemplateRefused
from tests.support.tokenizers import CHATML

USER = {"role": "user", "content": "hi"}


def render(source, messages=(USER,), **values):
    return ChatTemplate(source, {"bos_token": "<s>"}).render(messages, now=0, **values)


def test_a_jinja_file_wins_over_the_config(tmp_path):
    """chat_template.jinja first, as in transformers."""
    (tmp_path / "chat_template.jinja").write_text("file")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "config"}))
    assert ChatTemplate.from_directory(tmp_path, {}).render([USER], now=0) == "file"


@pytest.mark.parametrize(
    "value",
    ["config", [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "config"}]],
)
def test_the_config_may_hold_one_template_or_named_ones(tmp_path, value):
    """A string is the template; of a list the one called default."""
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": value}))
    assert ChatTemplate.from_directory(tmp_path, {}).render([USER], now=0) == "config"


def test_a_model_without_a_template_has_none(tmp_path):
    """Base models have no template, which is no fault."""
    assert ChatTemplate.from_directory(tmp_path, {}) is None


@pytest.mark.parametrize("value", [5, [], [{"name": "tool_use", "template": "x"}], {"a": "b"}])
def test_an_unusable_template_entry_is_refused_by_name(tmp_path, value):
    """The refusal names the file."""
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": value}))
    with pytest.raises(ModelRejected, match=r"tokenizer_config\.json: chat_template"):
        ChatTemplate.from_directory(tmp_path, {})


def test_a_template_that_does_not_compile_is_refused():
    """At start, not at the first request."""
    with pytest.raises(ModelRejected, match="does not compile"):
        ChatTemplate("{% for %}", {})


def test_the_template_refuses_a_conversation_in_its_own_words():
    """raise_exception is the client's fault."""
    with pytest.raises(TemplateRefused, match=r"^no system role$"):
        render("{{ raise_exception('no system role') }}")


@pytest.mark.parametrize("source", ["{{ messages[0].content.x.y }}", "{{ 1 / 0 }}", "{{ nope() }}"])
def test_any_other_failure_is_the_models_fault(source):
    """The client can do nothing about a template with a mistake in it."""
    with pytest.raises(TemplateBroken):
        render(source)


def test_the_time_is_the_one_given():
    """strftime_now tells `now`, so rendering stays a function of its arguments."""
    template = ChatTemplate("{{ strftime_now('%d %b %Y') }}", {})
    now = int(datetime(2024, 7, 26, tzinfo=UTC).timestamp())
    assert template.render([USER], now=now) == "26 Jul 2024"


def test_named_tokens_and_flags_are_variables():
    """bos_token, add_generation_prompt, tools and documents are there, and None when absent."""
    source = "{{ bos_token }}|{{ add_generation_prompt }}|{{ tools }}|{{ documents }}"
    assert render(source) == "<s>|True|None|None"


def test_generation_tags_render_as_their_content():
    """They mark training text and mean nothing here."""
    assert render("a{% generation %}b{{ messages[0].content }}{% endgeneration %}c") == "abhic"


@pytest.mark.parametrize(
    ("source", "keeps"),
    [
        (CHATML, True),
        ("{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}", False),
        (
            (
                "{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
                "{{ raise_exception('system must lead') }}{% endif %}{{ m.content }}{% endfor %}"
            ),
            False,
        ),
    ],
)
def test_whether_scattered_system_messages_survive_is_known_at_start(source, keeps):
    """Templates that drop or refuse them get one leading system message instead."""
    assert ChatTemplate(source, {}).keeps_scattered_system is keeps
