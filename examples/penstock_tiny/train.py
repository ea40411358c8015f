"""Train penstock-tiny on the CPU: packed rows, Muon and AdamW, a schedule by wall clock or steps.

`--minutes` makes the learning rate follow the clock, so that the final decay surely ends in time
whatever else the machine does; such a run is not reproducible bit by bit. `--steps` follows the
step count and is deterministic on a given machine. The run stops cleanly on SIGTERM and goes on
from its checkpoint when started again; while the file given by `--pause-file` exists it sleeps.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import data
import numpy as np
import torch
from muon import Muon
from transformers import LlamaConfig, LlamaForCausalLM

WARM_UP_STEPS = 60
DECAY_FROM = 0.74
LONG_EVERY = 4
UNLEARNT_WEIGHT = 0.1


def new_model(vocab: int) -> LlamaForCausalLM:
    """Build the network; the size keeps the bfloat16 file below 16 MB."""
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=320,
        intermediate_size=896,
        num_hidden_layers=6,
        num_attention_heads=10,
        num_key_value_heads=5,
        head_dim=32,
        max_position_embeddings=data.LONG,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config)


def optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Give the matrices of the layers to Muon and everything else to AdamW."""
    inner = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    matrices = {id(p) for p in inner}
    others = [p for p in model.parameters() if id(p) not in matrices]
    return [
        Muon(inner, lr=0.02, weight_decay=0.01),
        torch.optim.AdamW(others, lr=0.004, betas=(0.9, 0.95), weight_decay=0.0),
    ]


@dataclass
class Clock:
    """How far the run is, as a share of its wall-clock or step budget."""

    minutes: float
    steps: int
    deadline: float
    elapsed: float = 0.0

    def progress(self, step: int) -> float:
        """Return the share of the budget that is used up."""
        if self.steps:
            return step / self.steps
        left = self.minutes * 60 - self.elapsed
        if self.deadline:
            left = min(left, self.deadline - dt.datetime.now(dt.UTC).timestamp())
        return 1.0 if left <= 0 else self.elapsed / (self.elapsed + left)


def rate(step: int, progress: float) -> float:
    """Warm up, stay, then decay to zero."""
    warm = min(1.0, (step + 1) / WARM_UP_STEPS)
    if progress <= DECAY_FROM:
        return warm
    return warm * max(0.0, (1 - progress) / (1 - DECAY_FROM))


def loss_of(model: LlamaForCausalLM, tokens: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the weighted next-token loss of a batch."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(tokens, use_cache=False).logits[:, :-1]
    loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), tokens[:, 1:].flatten(), reduction="none"
    )
    weights = weights[:, 1:].flatten()
    return (loss * weights).sum() / weights.sum()


class Run:
    """One training run with its checkpoint."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        torch.manual_seed(args.seed)
        # The embedding's gradient is summed by several threads in any order unless told otherwise.
        torch.use_deterministic_algorithms(args.steps > 0)
        self.out: Path = args.out
        self.out.mkdir(parents=True, exist_ok=True)
        # Short rows are twice as fast; the long ones teach the whole context length.
        self.short = self._rows(args.seed, data.SHORT, args.tokens)
        self.long = self._rows(args.seed + 1000, data.LONG, args.tokens // 2)
        vocab = json.loads((args.tokenizer / "tokenizer.json").read_text())["model"]["vocab"]
        self.model = new_model(len(vocab))
        self.optimizers = optimizers(self.model)
        self.clock = Clock(args.minutes, args.steps, deadline_of(args.until))
        self.step = self.row = self.seen = 0
        self.stop = False
        if (self.out / "checkpoint.pt").exists():
            self._resume()

    def _rows(self, seed: int, length: int, total: int) -> tuple[np.ndarray, np.ndarray]:
        source = self.args.tokenizer / "tokenizer.json"
        return data.load(source, seed, total, length, self.out / f"rows{length}.npz")

    def _resume(self) -> None:
        state = torch.load(self.out / "checkpoint.pt", weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.row, self.seen = state["step"], state["row"], state["seen"]
        self.clock.elapsed = state["elapsed"]
        log(f"resumed at step {self.step}")

    def save(self) -> None:
        """Write the checkpoint by renaming, so that a kill never leaves half a file."""
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "row": self.row,
            "seen": self.seen,
            "elapsed": self.clock.elapsed,
        }
        torch.save(state, self.out / "checkpoint.tmp")
        (self.out / "checkpoint.tmp").replace(self.out / "checkpoint.pt")
        log(f"saved step {self.step}")

    def batch(self, progress: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Take the next rows: short ones, and during the decay every few steps long ones."""
        long = progress > DECAY_FROM and self.step % LONG_EVERY == 0
        tokens, learnt = self.long if long else self.short
        count = self.args.batch // tokens.shape[1]
        picked = np.arange(self.row, self.row + count) % len(tokens)
        self.row += count
        chosen = torch.from_numpy(tokens[picked].astype(np.int64))
        flags = torch.from_numpy(learnt[picked].astype(np.float32))
        return chosen, flags + UNLEARNT_WEIGHT * (1 - flags) * (chosen != 0)

    def wait(self) -> None:
        """Sleep while the pause file exists; that time does not count."""
        pause: Path | None = self.args.pause_file
        if pause is None or not pause.exists():
            return
        log("paused")
        self.save()
        while pause.exists() and not self.stop:
            time.sleep(1)
        log("going on")

    def train(self) -> None:
        """Train until the budget is used up or a signal comes."""
        compiled = torch.compile(loss_of, dynamic=False) if self.args.compile else loss_of
        saved, shown = time.monotonic(), 0.0
        while not self.stop and (progress := self.clock.progress(self.step)) < 1:
            self.wait()
            start = time.monotonic()
            tokens, weights = self.batch(progress)
            loss = compiled(self.model, tokens, weights)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group.setdefault("base", group["lr"])
                    group["lr"] = group["base"] * rate(self.step, progress)
                optimizer.step()
                optimizer.zero_grad()
            self.step += 1
            self.seen += tokens.numel()
            took = time.monotonic() - start
            self.clock.elapsed += took
            shown = loss.item() if not shown else 0.95 * shown + 0.05 * loss.item()
            if self.step % 10 == 0:
                speed = tokens.numel() / took
                figures = f"loss {shown:.4f} {speed:.0f} tok/s {self.seen} tokens"
                log(f"step {self.step} {progress:.3f} {figures}")
            if time.monotonic() - saved > self.args.save_every:
                self.save()
                saved = time.monotonic()
        self.save()
        log("stopped" if self.stop else "finished")


def deadline_of(clock: str) -> float:
    """Turn `HH:MM` in UTC into the next such moment, or 0 where none is given."""
    if not clock:
        return 0.0
    now = dt.datetime.now(dt.UTC)
    hours, minutes = map(int, clock.split(":"))
    moment = now.replace(hour=hours, minute=minutes, second=0)
    return (moment if moment > now else moment + dt.timedelta(days=1)).timestamp()


def log(text: str) -> None:
    """Print one line with the time."""
    print(time.strftime("%H:%M:%S"), text, flush=True)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of tokenizer.json")
    parser.add_argument("--minutes", type=float, default=70.0)
    parser.add_argument("--steps", type=int, default=0, help="deterministic budget instead")
    parser.add_argument("--until", default="", help="HH:MM in UTC, the latest end")
    parser.add_argument("--batch", type=int, default=8192, help="tokens per step")
    parser.add_argument("--tokens", type=int, default=20_000_000, help="text to generate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save-every", type=float, default=180.0, help="seconds")
    parser.add_argument("--pause-file", type=Path)
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    return parser.parse_args()


def main() -> None:
    """Train."""
    args = parse()
    torch.set_num_threads(args.threads)
    run = Run(args)

    def stop(_signum: int, _frame: object) -> None:
        run.stop = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    log(f"{sum(p.numel() for p in run.model.parameters())} parameters")
    run.train()


if __name__ == "__main__":
    main()
