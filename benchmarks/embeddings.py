"""Texts embedded per second, by our engine and by plain transformers, alternating in one run.

    python -m benchmarks.embeddings [--threads N]

A random BERT of MiniLM's size (384 numbers, 6 layers). Ours goes through the scheduler, one request
per text, as /v1/embeddings does without HTTP and tokenizer; transformers gets the texts of a batch
padded to the longest. Both take the mean and normalise. Each pair of figures is the median of
rounds that alternate, so whatever else the machine does meets both alike.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from transformers import BertConfig, BertModel

from engines.api import EmbeddingRequest, Embeds, EngineInfo, RequestId
from engines.embedding import PooledEmbedder
from engines.limits import Limits
from engines.stepped import SteppedEngine
from engines.torch.encoder_loading import open_encoder
from engines.torch.encoder_runner import EncoderRunner

MINI_LM = {
    "vocab_size": 30522,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "max_position_embeddings": 512,
}
ROUNDS = 9
LANES = 64
CASES = (  # name, texts at once, shortest, longest
    ("batch_1_30_tokens", 1, 30, 30),
    ("batch_32_30_tokens", 32, 30, 30),
    ("batch_32_8_to_64_tokens", 32, 8, 64),
    ("batch_32_16_to_256_tokens", 32, 16, 256),
)

Texts = list[list[int]]


class Ours:
    """The engine as it is served."""

    def __init__(self, path: Path, threads: int) -> None:
        loaded = open_encoder(path, threads=threads)
        facts = loaded.facts
        context = facts.max_context
        limits = Limits(
            context, LANES, context, context + 1, LANES, facts.vocab_size, whole_prompts=True
        )
        info = EngineInfo(
            "bench", context, facts.vocab_size, context + 1, LANES, LANES,
            generates=False, embeds=Embeds(facts.hidden_size, normalised=True),
        )  # fmt: skip
        self.engine = SteppedEngine(info, limits, EncoderRunner(loaded))
        self._calls = 0

    async def embed(self, texts: Texts) -> np.ndarray:
        embedder = PooledEmbedder(self.engine)
        self._calls += 1
        vectors = await asyncio.gather(
            *(
                embedder.embed(EmbeddingRequest(RequestId(f"{self._calls}-{i}"), tuple(text)))
                for i, text in enumerate(texts)
            )
        )
        return np.array([np.asarray(vector) for vector in vectors])


class Plain:
    """transformers by itself, with its fastest attention."""

    def __init__(self, path: Path) -> None:
        self._model = BertModel.from_pretrained(path, attn_implementation="sdpa").eval()

    def embed(self, texts: Texts) -> np.ndarray:
        longest = max(map(len, texts))
        ids = torch.zeros(len(texts), longest, dtype=torch.int64)
        mask = torch.zeros(len(texts), longest, dtype=torch.int64)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = torch.tensor(text)
            mask[row, : len(text)] = 1
        with torch.inference_mode():
            hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
            mean = (hidden * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
            return torch.nn.functional.normalize(mean, dim=-1).numpy()


def measure(threads: int = 1) -> dict[str, float]:
    """Texts per second of both in every case; they must agree."""
    with TemporaryDirectory() as folder:
        torch.manual_seed(0)
        BertModel(BertConfig(**MINI_LM)).save_pretrained(folder)
        return asyncio.run(_measure(Ours(Path(folder), threads), Plain(Path(folder))))


async def _measure(ours: Ours, plain: Plain) -> dict[str, float]:
    rng = np.random.default_rng(0)
    figures = {}
    await ours.engine.start()
    for name, count, shortest, longest in CASES:
        lengths = rng.integers(shortest, longest + 1, count)
        texts = [rng.integers(5, 30000, int(length)).tolist() for length in lengths]
        difference = np.abs(await ours.embed(texts) - plain.embed(texts)).max()
        assert difference < 1e-5, difference
        seconds: tuple[list[float], list[float]] = ([], [])
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            await ours.embed(texts)
            seconds[0].append(time.perf_counter() - begun)
            seconds[1].append(_timed(plain.embed, texts))
        figures[f"embed_{name}_per_s"] = count / statistics.median(seconds[0])
        figures[f"transformers_{name}_per_s"] = count / statistics.median(seconds[1])
    await ours.engine.stop(grace_s=1)
    return figures


def _timed(work: Callable[[Texts], object], texts: Texts) -> float:
    begun = time.perf_counter()
    work(texts)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    threads = parser.parse_args().threads
    for name, value in measure(threads).items():
        print(f"{name:44s} {value:9.1f}", flush=True)


if __name__ == "__main__":
    main()
