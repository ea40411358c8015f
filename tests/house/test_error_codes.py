"""Every code that a client may be told is in docs/errors.md, and nothing else is."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "errors.md"
CODE = re.compile(r"[a-z]+(_[a-z]+)*")
# Calls whose arguments are codes without being called so.
PLACES = {"ErrorReply": 2, "_refused": 1}


def told():
    """The codes in the source: `code="..."`, defaults of `code`, constants, and rows of tables."""
    codes = set()
    for folder in ("gateway", "openai_compat"):
        for path in (ROOT / folder).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                codes |= {text for text in map(_text, _named(node)) if text}
    return codes


def _named(node):
    match node:
        case ast.keyword(arg="code", value=value):
            yield value
        case ast.Call(func=ast.Name(id=name), args=args) if len(args) > PLACES.get(name, 99):
            yield args[PLACES[name]]
        case ast.Assign(targets=[ast.Name(id="CODE")], value=value):
            yield value
        case ast.AnnAssign(target=ast.Name(id="code"), value=value):
            yield value
        case ast.AnnAssign(target=ast.Name(id="_ENGINE_TABLE"), value=ast.Dict(values=rows)):
            yield from (row.elts[2] for row in rows)
        case ast.FunctionDef(args=ast.arguments(kwonlyargs=names, kw_defaults=values)):
            yield from (v for n, v in zip(names, values, strict=True) if n.arg == "code")


def _text(node):
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value if CODE.fullmatch(node.value) else None
    return None


def documented():
    return re.findall(r"^\| `([a-z_]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def test_every_code_has_a_row_and_every_row_a_code():
    """Once each."""
    rows = documented()
    assert len(rows) == len(set(rows))
    assert told() == set(rows)


def test_the_reader_finds_codes_of_every_kind():
    """A keyword, a default, a constant, a row of the table, a place in a call."""
    kinds = {
        "stream_not_found", "invalid_value", "invalid_json_schema", "engine_died",
        "queue_full", "model_does_not_rank", "invalid_grammar",
    }  # fmt: skip
    assert kinds <= told()
