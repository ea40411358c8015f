"""The house style as tests: sizes, docstrings, imports, and what may not be used at all."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("kvcache", "engines", "openai_compat", "gateway")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))

FILE_LINES = 400
FUNCTION_LINES = 50
PUBLIC_METHODS = 12

# Exceptions may only shrink: path -> its size when it was let in.
LONGER: dict[str, int] = {}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_file_reads_in_one_sitting(path):
    """Files, functions and classes stay within the wall; the first line says the file's job."""
    text = path.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree), f"{name(path)} does not say its job"
    assert len(text.splitlines()) <= LONGER.get(name(path), FILE_LINES)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= FUNCTION_LINES, f"{name(path)}:{node.lineno} {node.name}: {lines} lines"
        elif isinstance(node, ast.ClassDef):
            public = [
                item.name
                for item in node.body
                if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)
                and not item.name.startswith("_")
            ]
            assert len(public) <= PUBLIC_METHODS, f"{name(path)}: {node.name} has {public}"


@pytest.mark.parametrize("path", TESTS, ids=name)
def test_every_test_states_its_claim(path):
    """A test function's docstring is the claim it proves."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith(
            "test_"
        ):
            assert ast.get_docstring(node), f"{name(path)}:{node.lineno} {node.name}"


def modules() -> list[str]:
    return [
        module.name
        for package in PACKAGES
        for module in pkgutil.walk_packages([str(ROOT / package)], f"{package}.")
        if not module.name.endswith("__main__")
    ]


# What needs a package that is not in the lock: where that is missing, so are these.
OPTIONAL = {
    "engines.torch.cuda.kernels.attention": "triton",
    "engines.torch.cuda.kernels.fused": "triton",
    "engines.torch.cuda.opening": "triton",
    "engines.torch.cuda.triton_kernels": "triton",
}


@pytest.mark.parametrize("module", modules())
def test_every_module_imports(module):
    """No module is broken by itself, whatever imported it before."""
    if module.startswith("engines.openvino"):
        pytest.importorskip("openvino", reason="needs openvino: penstock[openvino]")
    if module in OPTIONAL:
        pytest.importorskip(OPTIONAL[module], reason="needs penstock[cuda]")
    importlib.import_module(module)


def test_importing_the_gateway_loads_no_tensor_library():
    """Neither torch nor transformers comes with the gateway, the dialect, or the text tools."""
    light = [m for m in modules() if not m.startswith(("engines.torch", "engines.openvino"))]
    code = (
        f"import importlib, sys\nfor m in {light!r}: importlib.import_module(m)\n"
        "heavy = {'torch', 'transformers', 'tensorrt_llm', 'vllm', 'openai'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_nothing_runs_code_from_data(path):
    """No eval, exec, pickle or torch.load anywhere in the product."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in FORBIDDEN_CALLS, f"{name(path)}:{node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            loads = node.func.attr == "load" and isinstance(owner, ast.Name) and owner.id == "torch"
            assert not loads, f"{name(path)}:{node.lineno} torch.load"
        if isinstance(node, ast.Import):
            assert not FORBIDDEN_MODULES & {alias.name for alias in node.names}, name(path)
        if isinstance(node, ast.ImportFrom):
            assert node.module not in FORBIDDEN_MODULES, name(path)
