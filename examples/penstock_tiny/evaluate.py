"""Score penstock-tiny on held-out prompts, skill by skill, and print a transcript.

`stops` is the share of answers that end by themselves, `right` the share that equal the one right
answer or, where there are many right answers, hold the words that a right one must hold.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from generate import samples
from render import render_text
from transformers import AutoTokenizer, LlamaForCausalLM

if TYPE_CHECKING:
    from skills.base import Message, Sample

BATCH = 16
CONVERSATIONS: tuple[tuple[str, ...], ...] = (
    ("Hello!", "My name is Ada.", "What is my name?"),
    ("What is Penstock?", "What does TTFT mean?"),
    ("What is 12 + 7?", "What is 58 + 37?", "What is 7 x 8?"),
    ("Count to ten.",),
    ("Reply in JSON with keys name and age. Mira is 31 years old.",),
    ("Say hello in Japanese.", "Repeat after me: naïve café 🦊"),
    ("Who won the world cup?",),
    ("Tell me a story about a fox named Pip.",),
)
WEATHER_TOOL: Message = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


@dataclass
class Score:
    """Counts of one skill."""

    asked: int = 0
    stopped: int = 0
    checked: int = 0
    right: int = 0

    def row(self) -> tuple[str, str]:
        """Return the two percentages as text."""
        right = f"{100 * self.right / self.checked:.0f}" if self.checked else "-"
        return f"{100 * self.stopped / max(1, self.asked):.0f}", right


class Model:
    """The exported model behind one function: prompts in, answers out."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.network = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def prompt(self, messages: list[Message], tools: list[Message]) -> str:
        """Render a conversation up to the point where the model has to go on."""
        return self.tokenizer.apply_chat_template(
            messages, tools=tools or None, tokenize=False, add_generation_prompt=True
        )

    @torch.inference_mode()
    def answer(self, prompts: list[str], temperature: float, limit: int) -> list[tuple[str, bool]]:
        """Answer each prompt; the flag says whether the answer ended by itself."""
        batch = self.tokenizer(prompts, return_tensors="pt", padding=True)
        sampling = {"do_sample": False, "temperature": None, "top_p": None}
        if temperature:
            sampling = {"do_sample": True, "temperature": temperature, "top_p": 0.9}
        written = self.network.generate(**batch, max_new_tokens=limit, **sampling)
        results = []
        for ids in written[:, batch["input_ids"].shape[1] :].tolist():
            ends = [i for i, token in enumerate(ids) if token in (0, 2)]
            kept = ids[: ends[0]] if ends else ids
            results.append((self.tokenizer.decode(kept, skip_special_tokens=True), bool(ends)))
        return results


def held_out(seed: int, per_skill: int, most: int = 200_000) -> dict[str, list[Sample]]:
    """Collect different held-out samples of every skill; few skills may have less than asked."""
    found: dict[str, dict[str, Sample]] = defaultdict(dict)
    for _, sample in zip(range(most // 40), samples(seed, held_out=True), strict=False):
        bucket = found[sample.skill]
        if len(bucket) < per_skill:
            bucket.setdefault(sample.held_out_key(), sample)
    return {skill: list(bucket.values()) for skill, bucket in sorted(found.items())}


def is_right(sample: Sample, answer: str) -> bool | None:
    """Judge an answer; None where only stopping can be judged."""
    if sample.contains:
        return all(part in answer for part in sample.contains)
    if sample.expect is not None:
        return answer.strip() == sample.expect
    return None


def score(model: Model, chosen: list[Sample], temperature: float) -> Score:
    """Ask all prompts of one skill."""
    result = Score()
    ordered = sorted(chosen, key=lambda s: len(render_text(s)))
    for start in range(0, len(ordered), BATCH):
        part = ordered[start : start + BATCH]
        prompts = [s.text[:40] if s.text else model.prompt(s.messages[:-1], s.tools) for s in part]
        long = any(s.skill in ("story", "raw", "mixed") for s in part)
        for sample, (answer, ended) in zip(
            part, model.answer(prompts, temperature, 640 if long else 200), strict=True
        ):
            result.asked += 1
            result.stopped += ended
            verdict = is_right(sample, answer)
            if verdict is not None:
                result.checked += 1
                result.right += verdict
            if verdict is False and not temperature:
                print(f"WRONG {sample.skill}: {answer!r}", file=sys.stderr)
    return result


def transcript(model: Model) -> None:
    """Print some greedy conversations and a tool call."""
    for turns in CONVERSATIONS:
        messages: list[Message] = []
        for turn in turns:
            messages.append({"role": "user", "content": turn})
            answer, ended = model.answer([model.prompt(messages, [])], 0.0, 640)[0]
            messages.append({"role": "assistant", "content": answer})
            print(f"**User:** {turn}\n\n**penstock-tiny:** {answer}{'' if ended else ' [cut]'}\n")
        print("---\n")
    asked: list[Message] = [{"role": "user", "content": "What is the weather in Oslo?"}]
    answer, _ = model.answer([model.prompt(asked, [WEATHER_TOOL])], 0.0, 200)[0]
    print(f"**User** (with the tool get_weather): {asked[0]['content']}\n\n```\n{answer}\n```\n")
    called = json.loads(answer.removeprefix("<tool_call>\n").removesuffix("\n</tool_call>"))
    asked += [
        {"role": "assistant", "content": "", "tool_calls": [{"function": called}]},
        {"role": "tool", "content": '{"weather": "sunny", "temperature": 21}'},
    ]
    answer, _ = model.answer([model.prompt(asked, [WEATHER_TOOL])], 0.0, 200)[0]
    print(f"**Tool:** {asked[-1]['content']}\n\n**penstock-tiny:** {answer}\n")


def check_template(model: Model, seed: int, count: int) -> None:
    """Make sure that the template renders samples exactly as they are trained on."""
    for _, sample in zip(range(count), samples(seed), strict=False):
        if sample.text:
            continue
        shown = model.tokenizer.apply_chat_template(
            sample.messages, tools=sample.tools or None, tokenize=False
        )
        if shown + "<|endoftext|>" != render_text(sample):
            raise ValueError(f"the template differs from the training text:\n{shown}")


def main() -> None:
    """Print a Markdown table and, on request, a transcript."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--per-skill", type=int, default=40)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--transcript", action="store_true", help="only print conversations")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    model = Model(args.model)
    check_template(model, args.seed, 300)
    if args.transcript:
        transcript(model)
        return
    print("| skill | prompts | greedy stops % | greedy right % | T=0.7 stops % | T=0.7 right % |")
    print("| --- | --- | --- | --- | --- | --- |")
    for skill, chosen in held_out(args.seed, args.per_skill).items():
        greedy, warm = score(model, chosen, 0.0), score(model, chosen, 0.7)
        print(
            f"| {skill} | {greedy.asked} | {' | '.join((*greedy.row(), *warm.row()))} |", flush=True
        )


if __name__ == "__main__":
    main()
