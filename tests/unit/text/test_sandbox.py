"""Hostile and runaway templates: refused quickly, in little memory, with no way to Python."""

import resource
import time

import pytest

from engines.text.template import ChatTemplate, TemplateBroken

BOMBS = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(999999999) %}{% endfor %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% macro f(x) %}{{ f(x ~ x) }}{% endmacro %}{{ f('a') }}",
    "{% macro f(x) %}{{ f(x + x) }}{% endmacro %}{{ f('a') }}",
    "{% set n = namespace(x='a') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "{% set n = namespace(x='a') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
    (
        "{% set ns = namespace(x='a') %}{% for i in range(99) %}"
        "{% set x %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = x %}{% endfor %}"
    ),
    "{{ 'a' * 1000000000 }}",
    "{{ 1000000000 * 'a' }}",
    "{{ [0] * 1000000000 }}",
    "{{ 10 ** 100000000 }}",
    "{{ 99 ** 99999 }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (1000000000, 1) }}",
    "{{ '%.1000000000f' % 1.5 }}",
    "{{ '%.*f' % (1000000000, 1.5) }}",
    "{{ '%(a)01000000000d' % {'a': 1} }}",
    "{{ '%-1000000000s' % 'a' }}",
    "{{ '%1000000000d' | format(1) }}",
    "{{ '{:>1000000000}'.format(1) }}",
    "{{ '{:>{}}'.format(1, 1000000000) }}",
    "{{ '{:.1000000000f}'.format(1.5) }}",
    "{{ 'a'.ljust(1000000000) }}",
    "{{ 'a'.zfill(1000000000) }}",
    "{{ 'a'.center(width=1000000000) }}{{ 'a' | center(1000000000) }}",
    "{{ 'a\nb' | indent(1000000000) }}",
    "{% for i in range(900000) %}aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa{% endfor %}" * 2,
    "{{ ('{' ~ ':' * 20000).format() }}",
    "{{ ('%(' * 60000) % {} }}",
]
ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__init__.__globals__ }}",
    "{{ raise_exception.__globals__['json'] }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ dict.__call__.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ namespace(__class__=1) }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ ''|attr('__class__') }}",
    "{{ (messages|map('attr', '__class__')|list)[0].__mro__ }}",
    "{{ messages.append(1) }}",
    "{% set _ = messages[0].update({'role': 'x'}) %}",
    "{{ strftime_now.__self__.__class__.__mro__ }}",
    "{% import 'os' as os %}{{ os }}",
    "{% include '/etc/passwd' %}",
]
MESSAGES = ({"role": "user", "content": "a"},)


@pytest.mark.parametrize("source", BOMBS)
def test_a_template_bomb_is_refused_quickly(source):
    """Within a quarter of a second and 64 MiB, as a fault of the model."""
    template = ChatTemplate(source, {})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    with pytest.raises(TemplateBroken):
        template.render(MESSAGES, now=0)
    assert time.process_time() - start < 1.0  # 0.25 s on a quiet machine
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


@pytest.mark.parametrize("source", ESCAPES)
def test_no_template_reaches_python(source):
    """What the sandbox guards renders as nothing or fails; no object of ours is shown."""
    try:
        text = ChatTemplate(source, {}).render(MESSAGES, now=0)
    except TemplateBroken:
        return
    assert "<class" not in text
    assert "built-in" not in text
    assert len(text) < 10


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ 'Date: 20240726 %s, 100000%%' % 'a' }}", "Date: 20240726 a, 100000%"),
        ("{{ '%-8s|%5.2f|%(a)s' | replace('%(a)s', '') | format('a', 1.5) }}", "a       | 1.50|"),
        ('{{ \'{{"a": {}, "n": 1000000}}\'.format(2) }}', '{"a": 2, "n": 1000000}'),
        ("{{ '{:>4}'.format(1) }}{{ 2 ** 10 }}{{ 'ab' * 2 }}", "   11024abab"),
        ("{{ 'a'.ljust(3) }}{{ 'b' | center(3) }}{{ 'c\nd' | indent(1) }}", "a   b c\n d"),
        ("{{ '{}'.format('x' * 70000) | length }}", "70000"),
    ],
)
def test_ordinary_formatting_is_left_alone(source, text):
    """The ceilings change nothing below them."""
    assert ChatTemplate(source, {}).render(MESSAGES, now=0) == text


def test_a_budget_is_per_rendering():
    """A long conversation does not use up the next one's loops."""
    template = ChatTemplate("{% for i in range(90000) %}{% endfor %}ok", {})
    assert [template.render(MESSAGES, now=0) for _ in range(20)] == ["ok"] * 20
