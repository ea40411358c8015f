"""`python -m benchmarks.validity [SCHEMAS TOOL_SETS]`: are all finished answers valid?

Asks the bundled model, at temperature 1, for answers by random JSON schemas and for calls by random
tool sets, and judges each by jsonschema. Prints the counts; exits with 1 for any that is not valid.
"""

import asyncio
import itertools
import sys
import time

from gateway.opening import open_engine
from tests.support.live import MODEL, live, test_settings
from tests.support.validity import judged, schema_cases, tool_cases


def main(schemas: int, tool_sets: int) -> int:
    """The exit code."""
    settings = test_settings(max_running=24, max_step_tokens=256)
    with live(settings, opener=open_engine) as server:
        begun = time.perf_counter()
        cases = itertools.chain(schema_cases(schemas), tool_cases(tool_sets))
        report = asyncio.run(judged(server.url, MODEL, cases))
        spent = time.perf_counter() - begun
    for line in report.lines():
        print(line)
    for wrong in report.wrong[:10]:
        print(*wrong, sep="\n  ")
    finished, cut = report.of("valid"), report.of("length")
    print(f"in {spent:.0f} s: {finished} finished and valid, {cut} cut by length,"
          f" {len(report.wrong)} wrong")  # fmt: skip
    return 1 if report.wrong else 0


if __name__ == "__main__":
    counts = [int(argument) for argument in sys.argv[1:]] or [1000, 200]
    sys.exit(main(*counts))
