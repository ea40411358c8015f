"""Runs the engine contract over every engine there is, and writes the table of docs/engines.

    python -m tests.support.conformance_table

A cell says what pytest said: passed, failed, or why it was skipped. A case that an engine's file
does not collect stays blank, and the page says what that means.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "engines" / "conformance.md"
CONTRACT = ROOT / "tests" / "conformance" / "test_engine_contract.py"
FILES = {  # beside the contract's own: a file for each further engine, and what its cases are
    "test_trtllm_engine.py": "trtllm {}",
    "test_smg_engine.py": "smg",
    "test_upstream_engine.py": "upstream {}",
}
HEAD = """\
# Which engine keeps which part of the contract

Made by `make conformance`. The cases are the tests of
`tests/conformance/test_engine_contract.py`, the columns what they ran over here:

| column | what ran |
|---|---|
| ledger, torch | our stepped engine with that runner, on a CPU |
| remote ledger, remote torch | the same behind a worker's socket |
| trtllm VERSION | the TensorRT-LLM adapter, a stand-in of that version's API: **no hardware** |
| smg | the client of `trtllm-serve --grpc`, a server on the published stubs: **no hardware** |
| upstream ... | the OpenAI-compatible client over our own server with that engine |

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


def main() -> int:
    outcomes = Outcomes()
    files = [CONTRACT, *(CONTRACT.parent / name for name in FILES)]
    code = pytest.main(["-q", *map(str, files)], plugins=[outcomes])
    PAGE.write_text(HEAD + table(outcomes.cells))
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
