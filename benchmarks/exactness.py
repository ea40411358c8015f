"""Are logits bit-equal whatever the scheduler does? Prints a table per runner and data type.

    python -m benchmarks.exactness [MODEL_DIR ...] [--threads N] [--engine openvino]

Without a directory, a random Llama of 6.5M parameters is measured. Every sequence first runs alone,
its prompt whole and its output one row per step; then again under each condition, with the same
tokens forced, and every row of logits that a token would be drawn from is compared.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig

from engines.torch.loading import open_model
from engines.torch.runner import TorchRunner
from tests.support.plans import Driver, Run, Seq

BLOCK = 32
BLOCKS = 512
NEW = 24
LENGTHS = (200, 1, 2, 3, 5, 17, 31, 32, 33, 64, 65, 90, 100, 127, 150, 399)

Rows = dict[tuple[int, int], torch.Tensor]  # (sequence, position) -> logits
Steps = Iterator[list[Run]]


class Bench:
    """One model, its sequences, and their logits under some order of steps."""

    def __init__(self, runner: Callable[[], Any], vocab: int) -> None:
        self.runner = runner
        rng = np.random.default_rng(0)
        self.logs = [rng.integers(0, vocab, length + NEW).tolist() for length in LENGTHS]

    def driver(self) -> Driver:
        return Driver(self.runner(), num_blocks=BLOCKS, block_size=BLOCK)

    def sequence(self, lane: int) -> Seq:
        return Seq(lane, self.logs[lane], LENGTHS[lane])

    def measure(self, driver: Driver, steps: Steps) -> Rows:
        """Run steps; keep the logits of every row that a token is drawn from."""
        rows: Rows = {}
        for runs in steps:
            plan = driver.plan(runs)
            places = [(run.seq, run.seq.computed + i) for run in runs for i in range(run.rows)]
            kept = [i for i, (seq, at) in enumerate(places) if at >= seq.prompt - 1]
            lanes = np.array([places[i][0].lane for i in kept], np.int32)
            plan = replace(plan, sample_rows=np.array(kept, np.int32), sample_lanes=lanes)
            logits = driver.runner.logits(plan)
            for i, line in zip(kept, logits, strict=True):
                rows[places[i][0].lane, places[i][1]] = torch.from_numpy(np.array(line))
            for run in runs:
                run.seq.computed += run.rows
        return rows

    def each_alone(self, steps: Callable[[Driver, Seq], Steps]) -> Rows:
        rows: Rows = {}
        for lane in range(len(LENGTHS)):
            driver = self.driver()
            rows |= self.measure(driver, steps(driver, self.sequence(lane)))
        return rows


def alone(_driver: Driver, seq: Seq) -> Steps:
    """The prompt whole, the output row by row."""
    yield [Run(seq, seq.prompt)]
    yield from one_by_one(seq)


def one_by_one(seq: Seq) -> Steps:
    while seq.pending:
        yield [Run(seq, 1)]


def chunked(_driver: Driver, seq: Seq) -> Steps:
    """The prompt in legal chunks: at least two tokens each, and never one left behind."""
    sizes = iter((7, 2, 31, 64, 3, 5) * 100)
    while left := seq.prompt - seq.computed:
        size = min(left, next(sizes))
        yield [Run(seq, left if left - size == 1 else size)]
    yield from one_by_one(seq)


def after_hit(_driver: Driver, seq: Seq) -> Steps:
    """Full blocks of the prompt were computed by another, longer prompt; two tokens remain."""
    shared = (seq.prompt - 2) // BLOCK
    if shared > 0:
        tokens = [*seq.tokens[: shared * BLOCK], *range(5, 45)]
        other = Seq(0, tokens, prompt=len(tokens) + 1)  # so that none of its rows is compared
        yield [Run(other, other.pending)]
        seq.table = other.table[:shared]
        seq.computed = shared * BLOCK
    yield [Run(seq, seq.prompt - seq.computed)]
    yield from one_by_one(seq)


def replayed(_driver: Driver, seq: Seq) -> Steps:
    """After preemption: the prompt whole, then the output as one-row segments of one step."""
    yield [Run(seq, seq.prompt)]
    yield [Run(seq, seq.pending, split=True)]


def recomputed(_driver: Driver, seq: Seq) -> Steps:
    """What the rules forbid: prompt and output recomputed as one chunk."""
    yield [Run(seq, seq.pending)]


def mixed(bench: Bench) -> Steps:
    """All together: one arrives per step, and decodes beside the prompts of the next."""
    seqs = [bench.sequence(lane) for lane in range(len(LENGTHS))]
    arrived = 1
    while any(seq.pending for seq in seqs):
        yield [Run(seq, 1 if seq.computed else seq.prompt) for seq in seqs[:arrived] if seq.pending]
        arrived = min(len(seqs), arrived + 1)


def compare(truth: Rows, rows: Rows) -> str:
    equal = sum(torch.equal(truth[key], line) for key, line in rows.items())
    worst = max(float((truth[key] - line).abs().max()) for key, line in rows.items())
    return f"{equal / len(rows):7.1%} of {len(rows)} | {worst:.1e}"


def open_bench(engine: str, path: Path, dtype: str, threads: int) -> Bench:
    """A bench over one runner after another of a model."""
    lanes = len(LENGTHS)
    if engine == "torch":
        loaded = open_model(path, dtype=dtype, threads=threads)
        sizes = {"num_blocks": BLOCKS, "block_size": BLOCK, "max_lanes": lanes}
        return Bench(lambda: TorchRunner(loaded, **sizes), loaded.facts.vocab_size)
    from engines.openvino.loading import open_model as open_graph  # noqa: PLC0415 - if installed
    from engines.openvino.runner import OpenvinoRunner  # noqa: PLC0415

    graph = open_graph(path, dtype=dtype, threads=threads)
    return Bench(
        lambda: OpenvinoRunner(graph, num_blocks=BLOCKS, max_lanes=lanes), graph.facts.vocab_size
    )


def report(engine: str, path: Path, dtype: str, threads: int) -> None:
    bench = open_bench(engine, path, dtype, threads)
    truth = bench.each_alone(alone)
    scale = float(torch.stack(list(truth.values())).std())
    conditions = {
        "run again": lambda: bench.each_alone(alone),
        "batch mix": lambda: bench.measure(bench.driver(), mixed(bench)),
        "chunking": lambda: bench.each_alone(chunked),
        "prefix hit": lambda: bench.each_alone(after_hit),
        "preemption, replayed": lambda: bench.each_alone(replayed),
        "(recomputed as a chunk)": lambda: bench.each_alone(recomputed),
    }
    for name, rows in conditions.items():
        print(
            f"| {engine} {path.name} | {dtype} | {scale:.1f} | {name} | {compare(truth, rows())} |"
        )


def random_llama() -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=2048,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for weight in model.parameters():
        if weight.dim() > 1:
            nn.init.normal_(weight, std=0.06)
    path = Path(mkdtemp()) / "random-6.5M"
    model.save_pretrained(path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--engine", choices=["torch", "openvino"], default="torch")
    arguments = parser.parse_args()
    more = ("int8", "int4") if arguments.engine == "openvino" else ()
    print(f"torch {torch.__version__}, {arguments.threads} threads")
    print("| model | dtype | logits std | condition | bit-equal rows | max abs difference |")
    print("|---|---|---|---|---|---|")
    for path in arguments.models or [random_llama()]:
        for dtype in ("float32", "bfloat16", *more):
            report(arguments.engine, path, dtype, arguments.threads)


if __name__ == "__main__":
    main()
