"""Penstock and rivals in turns on the same work, over HTTP: figures, ratios, bounds, a plot.

    python -m benchmarks.compare --model S --model M [--rival vllm] [--rival llama] [--repeats 5]

Install the rivals first (`python -m benchmarks.compare.rivals`). All servers are up at the same
time, and one of them works: Penstock, a rival, Penstock, a rival ... Whoever begins changes with
every repeat. Written to benchmarks/results: every run as JSON, as soon as it is done; the table;
the plot.
"""

import argparse
import contextlib
import fcntl
import json
import os
import platform
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.compare import rivals
from benchmarks.compare.floors import floors
from benchmarks.compare.models import SHAPES, write_model
from benchmarks.compare.report import bounds_table, drawing, table
from benchmarks.compare.servers import Server, Way, Work, llama, penstock, running, vllm
from benchmarks.load import QUIET, WrongCountsError, measure
from benchmarks.scenarios import SCENARIOS, Scenario, words_of

RESULTS = Path(__file__).parents[1] / "results"
FEW, MANY = 16, 64  # requests at once that a group of scenarios needs
KV_TOKENS = 40_960


@contextlib.contextmanager
def held(lock: Path | None) -> Iterator[None]:
    """A lock that others of this machine respect, so that they keep still meanwhile."""
    if lock is None:
        yield
        return
    with lock.open("a") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield


def ways(given: argparse.Namespace, work: Work) -> dict[str, Way]:
    """The servers by name, ours first."""
    known = {
        "vllm": lambda: vllm(work, "--dtype", "bfloat16", *given.vllm_flag),
        "llama": lambda: llama(work, *given.llama_flag, dtype=given.gguf_dtype),
    }
    flags = ["--engine", given.engine, "--dtype", given.dtype, *given.penstock_flag]
    return {"penstock": penstock(work, *flags)} | {name: known[name]() for name in given.rival}


def turns(
    scenario: Scenario, servers: dict[str, Server], repeat: int, quiet: float
) -> Iterator[dict[str, Any]]:
    """One run of each server, in an order that changes with the repeat; or why it is refused."""
    names = list(servers)
    first = repeat % len(names)
    for name in names[first:] + names[:first]:
        run = {"scenario": scenario.name, "server": name, "repeat": repeat}
        try:
            told = measure(servers[name].target, scenario, repeat, servers[name].pid, quiet)
            yield {**run, "figures": told}
        except (WrongCountsError, OSError) as error:
            print(f"refused: {name}, {error}", flush=True)
            yield {**run, "refused": str(error)}


def group(
    given: argparse.Namespace, work: Work, scenarios: Sequence[Scenario], result: dict[str, Any]
) -> None:
    """Start all servers, and run scenarios for which they all need the same slots."""
    words = words_of(work.model / "tokenizer.json")
    with contextlib.ExitStack() as stack:
        servers = {}
        for name, way in ways(given, work).items():
            log = RESULTS / f"{work.shape}-{name}.log"
            with held(given.lock):
                servers[name] = stack.enter_context(running(way, words, log))
            result["starts"].setdefault(name, []).append(servers[name].start_s)
            result["commands"][f"{name} ({work.slots} slots)"] = way.told()
            print(
                f"{work.shape} {name}: first token after {servers[name].start_s:.1f} s", flush=True
            )
        for scenario in scenarios:
            for server in servers.values():  # what is compiled or touched at first use
                with contextlib.suppress(WrongCountsError), held(given.lock):
                    measure(server.target, scenario, -1, quiet=1.0)
            for repeat in range(given.repeats):
                with held(given.lock):
                    result["runs"] += turns(scenario, servers, repeat, given.quiet)
                write(given, result)


def write(given: argparse.Namespace, result: dict[str, Any]) -> None:
    """Keep what there is; a run that is cut short loses nothing."""
    path = RESULTS / f"{given.name}-{result['model']}.json"
    path.write_text(json.dumps(result, indent=1))


def machine() -> dict[str, Any]:
    """Where it ran."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "")
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    return {
        "processor": named[0] if named else platform.processor(),
        "has": [flag for flag in wanted if f" {flag} " in f"{flags} "],
        "processors": os.cpu_count(),
        "python": platform.python_version(),
    }


def chosen_for(shape: str, name: str) -> Scenario:
    """A scenario, with chats that still run when the long prompt comes, however small the model."""
    scenario = SCENARIOS[name]
    return scenario.told(output=512) if (shape, name) == ("S", "d") else scenario


def compare(given: argparse.Namespace, name: str) -> dict[str, Any]:
    """All of one model."""
    path = write_model(name, rivals.HOME / "models")
    result: dict[str, Any] = {
        "model": name, "machine": machine(), "dtype": given.dtype, "threads": given.threads,
        "kv_tokens": KV_TOKENS, "quiet": given.quiet, "commands": {}, "starts": {}, "runs": [],
        "floors": {},
    }  # fmt: skip
    if given.floors:
        with held(given.lock):
            mib = SHAPES[name].parameters * 2 >> 20
            result["floors"] = floors(mib, "bfloat16", given.threads)
    for slots in (FEW, MANY):
        chosen = [chosen_for(name, one) for one in given.scenario]
        its = [one for one in chosen if (one.at_once > FEW) == (slots > FEW)]
        if its:
            group(given, Work(path, name, KV_TOKENS, slots, given.threads), its, result)
    write(given, result)
    return result


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", action="append", choices=list(SHAPES))
    parser.add_argument("--rival", action="append", choices=list(rivals.INSTALL))
    parser.add_argument("--scenario", action="append", choices=list(SCENARIOS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--engine", default="openvino", help="Penstock's (default: %(default)s)")
    parser.add_argument("--dtype", default="bfloat16", help="Penstock's (default: %(default)s)")
    parser.add_argument("--gguf-dtype", default="bf16", help="llama.cpp's: bf16, q8_0, ...")
    for server in ("penstock", "vllm", "llama"):
        parser.add_argument(f"--{server}-flag", action="append", default=[], metavar="FLAG")
    parser.add_argument("--quiet", type=float, default=QUIET, help="share that others may have")
    parser.add_argument("--no-floors", dest="floors", action="store_false", help="nor bounds")
    parser.add_argument("--lock", type=Path, help="a file to hold while something is measured")
    parser.add_argument("--name", default="compare", help="of the files written")
    given = parser.parse_args()
    given.model = given.model or ["S", "M"]
    given.rival = given.rival or list(rivals.INSTALL)
    given.scenario = given.scenario or ["a", "b16", "c", "d", "p", "b64"]
    return given


def main() -> None:
    given = parsed()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers end with what started them
    RESULTS.mkdir(exist_ok=True)
    results, told = [], []
    for name in given.model:
        result = compare(given, name)
        results.append(result)
        told.append(table(result) + (bounds_table(result) if given.floors else ""))
        print(told[-1], flush=True)
    (RESULTS / f"{given.name}.txt").write_text("\n".join(told) + "\n")
    at = results[0]["machine"]
    note = (
        f"{at['processors']} cores, {at['processor']}; bars are medians of {given.repeats} repeats"
    )
    (RESULTS / f"{given.name}.svg").write_text(drawing(results, note))
    print(f"written to {RESULTS}/{given.name}*")


if __name__ == "__main__":
    main()
