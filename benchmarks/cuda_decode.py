"""Decoding on a GPU against the memory's bandwidth, and beside transformers' own batching.

    python -m benchmarks.cuda_decode [--json FILE]
    python -m benchmarks.cuda_decode --device cpu --layers 2 --tiny     # the code, not the figures

Random weights in the shape of Llama 3.1 8B are made on the device. First come the floors: what the
memory copies per second, and so the least time of a step that reads all weights. Then one sequence
alone, and batches of a prompt and an output length, through the scheduler and the runner without a
server: output tokens per second from the first plan to the last token, prompts included, and the
median of the steps that only decode. Then, in the same process and of the same weights,
`generate_batch` of transformers on the same work, by its own clock: from the first request it was
given to the last it finished. The first run of each is not counted.
"""

import argparse
import gc
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig

from engines.api import GenerationRequest, RequestId, Sampling
from engines.limits import Limits
from engines.scheduler import Scheduler
from engines.torch.cuda.decoder import CudaDecoder, Sizes
from engines.torch.cuda.graphs import Graphs
from engines.torch.cuda.plain import PlainKernels
from engines.torch.decoders import Decoder, open_decoder
from engines.torch.families import ModelFacts
from engines.torch.loading import LoadedModel
from engines.torch.recipe import Pooling, Recipe
from engines.torch.runner import TorchRunner
from engines.torch.vectors import VectorHead
from kvcache.pool import BlockPool

BLOCK = 32
CHUNK = 8192  # prompt tokens in one step


@dataclass(frozen=True)
class Work:
    """So many sequences, each of a prompt and an output of these lengths."""

    batch: int
    prompt: int
    output: int


WORK = (Work(1, 128, 256), Work(64, 128, 128), Work(256, 128, 128), Work(64, 1000, 1000),
        Work(256, 1000, 1000))  # fmt: skip
TINY = (Work(1, 5, 6), Work(4, 20, 6))


@dataclass(frozen=True)
class Figures:
    """One run of one piece of work."""

    runner: str
    work: Work
    tokens_per_s: float
    step_ms: float | None  # median of the steps that only decode; None: it does not tell

    def __str__(self) -> str:
        """One row."""
        step = "" if self.step_ms is None else f"{self.step_ms:9.3f} ms/step"
        name = f"{self.runner:13s} {self.work.batch:4d} x {self.work.prompt}/{self.work.output}"
        return f"{name:32s} {self.tokens_per_s:10.1f} tok/s {step}"


def shape(options: argparse.Namespace) -> LlamaConfig:
    """Llama 3.1 8B with as many layers as asked for, or something tiny."""
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4,
             "num_key_value_heads": 2, "vocab_size": 512} if options.tiny else {
             "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
             "num_key_value_heads": 8, "vocab_size": 128256}  # fmt: skip
    return LlamaConfig(**sizes, num_hidden_layers=options.layers, max_position_embeddings=4096)


def made(config: LlamaConfig, device: torch.device, attention: str) -> torch.nn.Module:
    """The same random weights every time, made where they will be."""
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with device:
        module = AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation=attention
        )
    return module.eval().requires_grad_(requires_grad=False)


def loaded(config: LlamaConfig, device: torch.device) -> LoadedModel:
    """A model as the runner takes it."""
    module = made(config, device, "sdpa")
    facts = ModelFacts(
        family="llama", architecture="LlamaForCausalLM", vocab_size=config.vocab_size,
        max_context=config.max_position_embeddings, layers=config.num_hidden_layers,
        kv_heads=config.num_key_value_heads, head_dim=config.head_dim,
        hidden_size=config.hidden_size, eos_ids=(), dtype="bfloat16",
    )  # fmt: skip
    return LoadedModel(module, facts, device, module.dtype, VectorHead(Recipe(Pooling.LAST)))


def copy_rate(device: torch.device) -> float:
    """Bytes per second, read and written, of a large copy: the best of ten."""
    size = 1 << (32 if device.type == "cuda" else 24)
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(10):
        synchronize(device)
        begun = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        best = min(best, time.perf_counter() - begun)
    return 2 * size / best


def read_bytes(module: torch.nn.Module) -> int:
    """Weights that a step reads: all but the table of embeddings, of which it reads some rows."""
    table = module.get_input_embeddings().weight
    return sum(weight.nbytes for weight in module.parameters()) - table.nbytes


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def prompts(work: Work, vocab: int, seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, vocab, (work.batch, work.prompt)).tolist()


class Ours:
    """The scheduler and the runner, as an engine has them."""

    def __init__(self, model: LoadedModel, work: tuple[Work, ...]) -> None:
        self._vocab = model.facts.vocab_size
        self._lanes = max(each.batch for each in work)
        self._blocks = max(each.batch * -(-(each.prompt + each.output + 1) // BLOCK)
                           for each in work) + self._lanes  # fmt: skip
        self._context = model.facts.max_context
        self._runner = TorchRunner(
            model, num_blocks=self._blocks, block_size=BLOCK, max_lanes=self._lanes,
            decoder=self._decoder(model),
        )  # fmt: skip

    def _decoder(self, model: LoadedModel) -> Decoder:
        if model.device.type == "cuda":
            return open_decoder(
                model, num_blocks=self._blocks, block_size=BLOCK, max_rows=self._lanes
            )
        sizes = Sizes(self._blocks, BLOCK, self._lanes)
        return CudaDecoder(model, sizes, PlainKernels(), graphs=Graphs.OFF)

    def run(self, work: Work, seed: int) -> Figures:
        """All sequences at once, until the last has ended."""
        limits = Limits(
            self._context, self._lanes, CHUNK + self._lanes, BLOCK, self._blocks, self._vocab
        )
        scheduler = Scheduler(limits, BlockPool(self._blocks, BLOCK))
        for number, prompt in enumerate(prompts(work, self._vocab, seed)):
            sampling = Sampling(work.output, temperature=0.0)
            scheduler.add(GenerationRequest(RequestId(str(number)), tuple(prompt), sampling))
        steps = []
        begun = now = time.perf_counter()
        while scheduler.has_work:
            plan = scheduler.plan()
            decodes = plan.rows == plan.segments == work.batch
            scheduler.apply(plan, self._runner.collect(self._runner.launch(plan)))
            before, now = now, time.perf_counter()
            if decodes:
                steps.append(now - before)
        rate = work.batch * work.output / (now - begun)
        return Figures("penstock", work, rate, 1e3 * statistics.median(steps))

    def close(self) -> None:
        self._runner.close()


class Theirs:
    """transformers' continuous batching, with what it chooses by itself."""

    def __init__(self, config: LlamaConfig, device: torch.device) -> None:
        self._module = made(config, device, "sdpa")

    def run(self, work: Work, seed: int) -> Figures:
        """The same prompts, greedy, to their full lengths."""
        config = GenerationConfig(
            max_new_tokens=work.output, do_sample=False, eos_token_id=-1, pad_token_id=0
        )
        inputs = prompts(work, self._module.config.vocab_size, seed)
        found = self._module.generate_batch(inputs, config)
        # Its manager is made anew for each call; what counts is what it tells of the requests.
        begun = min(each.created_time for each in found.values())
        seconds = max(each.lifespan[1] for each in found.values()) - begun
        tokens = sum(len(each.generated_tokens) for each in found.values())
        if tokens != work.batch * work.output:
            raise RuntimeError(f"{tokens} tokens came of {work.batch * work.output}")
        return Figures("transformers", work, tokens / seconds, None)


def released(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Floors, then us, then them; printed as they come."""
    device, config = torch.device(options.device), shape(options)
    work = TINY if options.tiny else WORK
    rate = copy_rate(device)
    model = loaded(config, device)
    bound_ms = 1e3 * read_bytes(model.module) / rate
    print(f"copies {rate / 1e12:.3f} TB/s; a step reads {read_bytes(model.module) / 1e9:.2f} GB of "
          f"weights: at least {bound_ms:.3f} ms")  # fmt: skip
    results = repeated(Ours(model, work), work, options.repeats, bound_ms)
    del model
    released(device)
    if options.rival:
        results += repeated(Theirs(config, device), work, options.repeats, bound_ms)
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__, "copy_bytes_per_s": rate, "bound_ms": bound_ms,
        "results": [asdict(each) for each in results],
    }  # fmt: skip


def repeated(
    runner: Ours | Theirs, work: tuple[Work, ...], repeats: int, bound_ms: float
) -> list[Figures]:
    """Each piece of work once for nothing, then the median of its repeats."""
    results = []
    for each in work:
        runner.run(each, 0)
        runs = sorted(
            (runner.run(each, seed) for seed in range(1, repeats + 1)),
            key=lambda run: run.tokens_per_s,
        )
        found = runs[len(runs) // 2]
        spread = f"  ({runs[0].tokens_per_s:.1f} to {runs[-1].tokens_per_s:.1f})"
        alone = each.batch == 1 and found.step_ms is not None
        bound = f"  {bound_ms / found.step_ms:.1%} of the bound" if alone else ""
        print(f"{found}{bound}{spread}", flush=True)
        results.append(found)
    if isinstance(runner, Ours):
        runner.close()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--tiny", action="store_true", help="a model that a CPU can run")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-rival", dest="rival", action="store_false")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("no NVIDIA GPU here: nothing was measured (--device cpu --tiny runs the code)")
    results = measure(options)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
