"""The stand-in of TensorRT-LLM is for tests: no product file knows it, no wheel has it."""

import ast
import tomllib
from pathlib import Path

from setuptools import find_packages

ROOT = Path(__file__).parents[2]
PRODUCT = ("gateway", "openai_compat", "engines", "kvcache")


def test_no_wheel_has_the_stand_in():
    """Packages are found by the patterns of pyproject.toml, which leave all tests out."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["packages"]["find"]["include"]
    found = find_packages(str(ROOT), include=patterns)
    assert "engines.trtllm" in found
    assert not [name for name in found if "standin" in name or name.split(".")[0] == "tests"]


def test_nothing_imports_another_engine_or_tests_while_it_is_imported():
    """The product imports the real ones when an engine is opened, and by name."""
    for package in PRODUCT:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = (
                    [alias.name for alias in node.names]
                    if isinstance(node, ast.Import)
                    else [node.module or ""]
                    if isinstance(node, ast.ImportFrom)
                    else []
                )
                tops = {name.split(".")[0] for name in names}
                assert not tops & {"tensorrt_llm", "vllm", "tests"}, f"{path}:{node.lineno}"
