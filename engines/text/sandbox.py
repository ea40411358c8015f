"""The Jinja environment chat templates run in: transformers' semantics, with ceilings on work.

A template comes with the model, the messages it works on from a client. Jinja's immutable sandbox
keeps both from reaching Python; the ceilings keep a template from turning one request into hours
or gigabytes: passes of all loops together, the size of every assigned or concatenated value and of
the output, repeats, powers, and widths of padding. They lie far above what any published template
does and are no settings. Not covered: one filter call over one huge value (`x|list|join(x)`).
"""

import json
import re
from collections.abc import Callable, Sized
from dataclasses import dataclass
from typing import Any

import jinja2
import jinja2.ext
import jinja2.parser
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

MAX_LOOP_PASSES = 1_000_000
MAX_CHARS = 8 << 20  # of one value, and of the output
_MAX_ITEMS = 100_000  # of one list
_MAX_WIDTH = 10_000
_MAX_POWER = 1000

_BUDGET = " budget"  # a leading space: no template can spell these names
_CHARGE = " charge"
_CAP = " cap"
_PADDING_METHODS = frozenset({"center", "expandtabs", "ljust", "rjust", "zfill"})
_PADDING_FILTERS = ("center", "indent", "truncate", "wordwrap")
# Widths and precisions of five digits or more, or given by an argument; in `{}` formats also a
# field inside of a field.
_WIDE_PERCENT = re.compile(r"%(?:\([^)]*\))?[-+ #0]*\d*(?:\d{5}|\.?\*|\.\d{5})")
_WIDE_BRACES = re.compile(r"\{[^{}:]*:[^{}]*\d{5}|\{[^{}]*\{")  # of one colon only: it is linear
_MAX_PERCENTS = 1000  # each may look through all the text for its bracket


class ClientFault(jinja2.TemplateError):
    """The template refused the conversation by `raise_exception`; the message says why."""


class TextOverrun(SecurityError):  # noqa: N818 - what happened, as at every call site
    """A text that the template makes of the conversation is larger than `MAX_CHARS`."""


@dataclass(slots=True)
class Budget:
    """Loop passes left to one rendering."""

    passes: int = MAX_LOOP_PASSES

    def charge(self, passes: int) -> None:
        """Take passes. Raises `SecurityError` when they are spent."""
        self.passes -= passes
        if self.passes < 0:
            raise SecurityError(f"the template loops more than {MAX_LOOP_PASSES} times")


def with_budget(variables: dict[str, object]) -> dict[str, object]:
    """The variables of one rendering together with its budget."""
    return {**variables, _BUDGET: Budget()}


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """Jinja as chat templates expect it."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=False,
            extensions=[_GenerationTag, jinja2.ext.loopcontrols],
        )
        self.filters |= {"tojson": _tojson, _CHARGE: _charge, _CAP: _capped}
        self.filters |= {name: _narrow(self.filters[name]) for name in _PADDING_FILTERS}
        self.filters["format"] = _format_filter(self.filters["format"])
        self.globals["raise_exception"] = _raise_exception
        self.globals["dict"] = _TemplateDict()
        self.globals["namespace"] = _TemplateNamespace

    def call_binop(self, context: Context, operator: str, left: object, right: object) -> object:
        if operator == "*":
            _check_repeat(left, right)
        elif operator == "**":
            _check_power(left, right)
        elif operator == "%":
            _check_percent(left)
        return _capped(super().call_binop(context, operator, left, right))

    def call(*call: object, **kwargs: object) -> object:
        """Any keyword, `self` included, may be an argument of the template's call."""
        self, context, function, *args = call
        if getattr(function, "__name__", "") in _PADDING_METHODS:
            _check_widths(args)
        return ImmutableSandboxedEnvironment.call(self, context, function, *args, **kwargs)  # type: ignore[arg-type]

    def wrap_str_format(self, value: object) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            _check_braces(getattr(value, "__self__", ""))
        return wrapped

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Ceilings().visit(super()._parse(source, name, filename))
        return tree


class _Ceilings(NodeTransformer):
    """Puts a check around loops, assignments and concatenations; their values stay the same."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802 - Jinja's naming
        self.generic_visit(node)
        node.iter = _filtered(node.iter, _CHARGE, node)
        return node

    def visit_Assign(self, node: nodes.Assign) -> nodes.Assign:  # noqa: N802
        self.generic_visit(node)
        node.node = _filtered(node.node, _CAP, node)
        return node

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.AssignBlock:  # noqa: N802
        self.generic_visit(node)
        node.filter = _filtered(node.filter, _CAP, node)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, _CAP, node)


def _filtered(value: nodes.Node | None, name: str, near: nodes.Node) -> nodes.Filter:
    call = nodes.Filter(value, name, [], [], None, None, lineno=near.lineno)
    call.set_environment(near.environment)  # type: ignore[arg-type]
    return call


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}...{% endgeneration %}` marks training text; it renders as its content."""

    tags = {"generation"}  # noqa: RUF012 - Jinja declares it so

    def parse(self, parser: jinja2.parser.Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        # A call block, as in transformers: names set inside it do not leak out.
        return nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    def _render(self, caller: Callable[[], str]) -> str:
        return caller()


class _TemplateDict:
    """`dict(...)` without the type itself, whose attributes would be reachable."""

    def __call__(self, *args: Any, **kwargs: object) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: object) -> dict[object, object]:
        return dict.fromkeys(*args)  # type: ignore[call-overload, no-any-return]


class _TemplateNamespace(Namespace):
    """`namespace(...)` that refuses names with a leading underscore."""

    def __init__(*call: Any, **attributes: object) -> None:
        self, *rest = call
        for name in dict(*rest, **attributes):
            _check_name(name)
        Namespace.__init__(self, *rest, **attributes)

    def __setitem__(self, name: str, value: object) -> None:
        _check_name(name)
        super().__setitem__(name, value)


@jinja2.pass_context
def _charge(context: Context, iterable: object) -> object:
    """Take a loop's passes from the budget as it is entered."""
    if isinstance(iterable, Sized):
        passes = len(iterable)
    elif hasattr(iterable, "__next__"):
        items = list(iterable)  # type: ignore[call-overload]
        iterable, passes = items, len(items)
    else:
        return iterable  # not iterable: Jinja says so itself
    context.resolve(_BUDGET).charge(passes + 1)
    return iterable


def _capped(value: object) -> object:
    if isinstance(value, str):
        check_text(len(value))
    elif isinstance(value, (list, tuple)):
        _check_size(len(value), _MAX_ITEMS)
    return value


def check_text(size: int) -> None:
    """Raises `TextOverrun` for a value, or an output, of more characters than may be."""
    if size > MAX_CHARS:
        raise TextOverrun(f"a text of the template is larger than {MAX_CHARS} characters")


def _check_repeat(left: object, right: object) -> None:
    for sequence, times in ((left, right), (right, left)):
        if isinstance(sequence, (str, list, tuple)) and isinstance(times, int):
            _check_size(
                len(sequence) * times, MAX_CHARS if isinstance(sequence, str) else _MAX_ITEMS
            )


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise SecurityError(f"a value of the template is larger than {limit}")


def _check_power(base: object, exponent: object) -> None:
    for number in (base, exponent):
        if isinstance(number, (int, float)) and abs(number) > _MAX_POWER:
            raise SecurityError(f"a power in the template takes a number above {_MAX_POWER}")


def _check_widths(values: object) -> None:
    for value in values if isinstance(values, (list, tuple)) else ():
        if isinstance(value, int) and value > _MAX_WIDTH:
            raise SecurityError(f"a width in the template is above {_MAX_WIDTH}")


def _check_percent(template: object) -> None:
    if not isinstance(template, str):
        return
    if template.count("%(") > _MAX_PERCENTS or _WIDE_PERCENT.search(template):
        raise SecurityError(f"a format in the template may be wider than {_MAX_WIDTH}")


def _check_braces(template: str) -> None:
    # Doubled braces are text; taking "}}" out as well leaves the openings of fields in place.
    if _WIDE_BRACES.search(template.replace("{{", "").replace("}}", "")):
        raise SecurityError(f"a format in the template may be wider than {_MAX_WIDTH}")


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError("a namespace of the template has a name with a leading underscore")


def _narrow(original: Callable[..., str]) -> Callable[..., str]:
    """A padding filter that refuses great widths."""

    def narrow(*args: object, **kwargs: object) -> str:
        _check_widths([*args, *kwargs.values()])
        return original(*args, **kwargs)

    return _same_context(original, narrow)


def _format_filter(original: Callable[..., str]) -> Callable[..., str]:
    def format_filter(value: object, *args: object, **kwargs: object) -> str:
        _check_percent(value)
        return original(value, *args, **kwargs)

    return _same_context(original, format_filter)


def _same_context(original: Callable[..., str], wrapper: Callable[..., str]) -> Callable[..., str]:
    """Jinja reads from an attribute whether a filter wants the environment as first argument."""
    marker = getattr(original, "jinja_pass_arg", None)
    if marker is not None:
        wrapper.jinja_pass_arg = marker  # type: ignore[attr-defined]
    return wrapper


def _raise_exception(message: object) -> None:
    raise ClientFault(str(message))


def _tojson(
    value: object,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002 - transformers' positions and defaults
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002
) -> str:
    """Plain JSON: Jinja's own filter would escape for HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
