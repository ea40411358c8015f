"""`make bench`: every figure of docs/performance.md, printed and kept as JSON."""

import json
import platform
from pathlib import Path

from benchmarks import frames, scheduler, serving


def main() -> None:
    figures: dict[str, float] = {}
    for part in (scheduler, frames, serving):
        for name, value in part.measure().items():
            print(f"{name:40s} {value:9.2f}", flush=True)
            figures[name] = round(value, 3)
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    machine = f"{platform.machine()} {platform.python_implementation()} {platform.python_version()}"
    (results / "latest.json").write_text(json.dumps({"machine": machine, **figures}, indent=2))


if __name__ == "__main__":
    main()
