"""What a comparison came to: medians, spread and ratios of its runs, as a table, and its plot."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.compare.floors import bound, prefill_bound
from benchmarks.compare.models import SHAPES
from benchmarks.compare.plot import Bar, Group, svg
from benchmarks.scenarios import SCENARIOS, TELLS

# What is told of every run, and whether more of it is better.
FIGURES = {
    "tok_s": True, "tpot_ms": False, "ttft_p50_ms": False, "ttft_p99_ms": False,
    "itl_p50_ms": False, "itl_p99_ms": False, "itl_max_ms": False, "long_ttft_ms": False,
    "cpu_s": False, "rss_mib": False, "pss_mib": False,
}  # fmt: skip
NAMES = {"penstock": "Penstock", "vllm": "vLLM", "llama": "llama.cpp"}


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over the repeats of one server."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.median:.4g} [{self.least:.4g}-{self.most:.4g}]"


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def gain(name: str, ours: float, theirs: float) -> float:
    """How many times as good ours is: above 1 is better, whichever way the figure goes."""
    return ours / theirs if FIGURES[name] else theirs / ours


def summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Spread]]]:
    """Scenario, server, figure: its spread, in the order in which they were first run.

    Runs that were refused are not in it.
    """
    runs = [run for run in runs if "figures" in run]
    told: dict[str, dict[str, dict[str, Spread]]] = {}
    for scenario in dict.fromkeys(run["scenario"] for run in runs):
        of_it = [run for run in runs if run["scenario"] == scenario]
        told[scenario] = {}
        for server in dict.fromkeys(run["server"] for run in of_it):
            its = [run["figures"] for run in of_it if run["server"] == server]
            told[scenario][server] = {
                name: spread([one[name] for one in its]) for name in FIGURES if name in its[0]
            }
    return told


def table(result: Mapping[str, Any]) -> str:
    """Every figure of every server: the median, [least-most], and the first server's gain."""
    lines = []
    for scenario, servers in summary(result["runs"]).items():
        first = next(iter(servers))
        lines += [f"\n{result['model']} {scenario}: {TELLS[scenario]}"]
        names = [name for name in FIGURES if name in servers[first]]
        lines.append(f"  {'':14}" + "".join(f"{server:>34}" for server in servers))
        for name in names:
            cells = f"{servers[first][name]!s:>34}"
            for server in list(servers)[1:]:
                theirs = servers[server][name]
                ratio = gain(name, servers[first][name].median, theirs.median)
                cells += f"{f'{theirs} {ratio:.2f}x':>34}"
            lines.append(f"  {name:14}{cells}")
    lines.append("\nstart, s, to the first token")
    starts = {name: spread(values) for name, values in result["starts"].items()}
    lines += [f"  {name:14}{value}" for name, value in starts.items()]
    shares = [run["figures"]["others"] for run in result["runs"] if "figures" in run]
    if noisy := [share for share in shares if share > result["quiet"]]:
        told = f"of the machine, in one {max(noisy):.0%}"
        lines.append(
            f"in {len(noisy)} of {len(shares)} runs others had > {result['quiet']:.0%} {told}"
        )
    lines += [f"refused: {run['server']}, {run['refused']}" for run in refused(result)]
    return "\n".join(lines)


def refused(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Runs in which a server did not do what was asked."""
    return [run for run in result["runs"] if "refused" in run]


def bounds(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Each server's steps beside the least that this machine needs for them."""
    shape, floor = SHAPES[result["model"]], result["floors"][str(result["threads"])]
    told: dict[str, dict[str, Any]] = {}
    for scenario, servers in summary(result["runs"]).items():
        ask = SCENARIOS[scenario].asks[0]
        rows = SCENARIOS[scenario].at_once
        if scenario in {"c", "d"}:  # steps of prompts and answers at once
            continue
        if scenario == "p":
            least, figure = prefill_bound(shape, floor, ask.prompt), "ttft_p50_ms"
        else:
            least, figure = bound(shape, floor, rows, ask.prompt + ask.output // 2), "tpot_ms"
        told[scenario] = {
            "bound": asdict(least),
            "of_it": {name: least.ms / its[figure].median for name, its in servers.items()},
        }
    return told


def bounds_table(result: Mapping[str, Any]) -> str:
    """The same, as lines."""
    lines = ["\n\nof the machine's bound (1.00: nothing faster is possible here)"]
    for scenario, told in bounds(result).items():
        least = told["bound"]
        reached = "   ".join(f"{name} {value:.2f}" for name, value in told["of_it"].items())
        lines.append(f"  {scenario:4} {least['ms']:7.2f} ms by {least['by']:10}   {reached}")
    return "\n".join(lines)


def drawing(results: Sequence[Mapping[str, Any]], note: str) -> str:
    """Output tokens per second of every model and scenario, as SVG."""
    groups = [
        Group(
            f"{result['model']}, {scenario}",
            [Bar(NAMES.get(name, name), *_three(its["tok_s"])) for name, its in servers.items()],
        )
        for result in results
        for scenario, servers in summary(result["runs"]).items()
        if scenario != "p"
    ]
    return svg("Output tokens per second, over HTTP", note, groups)


def _three(value: Spread) -> tuple[float, float, float]:
    return value.median, value.least, value.most
