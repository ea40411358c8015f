"""Train the byte-level BPE tokenizer of penstock-tiny on its own generated text."""

from __future__ import annotations

import argparse
import itertools
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from generate import samples
from render import render_text
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# Like Qwen2.5, the tool tags are single tokens that decoding keeps even when it skips the
# control tokens: clients parse them.
TAGS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
# Each digit is its own token, and a word never takes punctuation along: values copied from prose
# into JSON keep their tokens.
SPLIT = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}[\p{L}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CONTEXT = 2048


def _texts(seed: int, count: int) -> Iterator[str]:
    """Yield rendered samples without the special tokens, so that no merge can hold one."""
    special = re.compile("|".join(map(re.escape, CONTROL + TAGS)))
    for sample in itertools.islice(samples(seed), count):
        yield from (part for part in special.split(render_text(sample)) if part)


def train(seed: int, count: int, vocab: int) -> Tokenizer:
    """Train the tokenizer; the special tokens take the first ids."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(CONTROL + TAGS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(seed, count), trainer)
    return tokenizer


def save(tokenizer: Tokenizer, out: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and the chat template."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    written = json.loads((out / "tokenizer.json").read_text(encoding="utf-8"))
    for token in written["added_tokens"]:
        token["special"] = token["content"] in CONTROL
    (out / "tokenizer.json").write_text(
        json.dumps(written, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )
    decoder = {
        str(tokenizer.token_to_id(t)): vars_of(AddedToken(t, special=t in CONTROL))
        for t in CONTROL + TAGS
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": decoder,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "add_bos_token": False,
        "additional_special_tokens": ["<|im_start|>"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    if (HERE / "chat_template.jinja").resolve() != (out / "chat_template.jinja").resolve():
        shutil.copyfile(HERE / "chat_template.jinja", out / "chat_template.jinja")


def vars_of(token: AddedToken) -> dict[str, object]:
    """Return an added token the way tokenizer_config.json stores it."""
    keys = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    return {key: False if key == "normalized" else getattr(token, key) for key in keys}


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=40000, help="samples to train on")
    parser.add_argument("--vocab", type=int, default=2560)
    args = parser.parse_args()
    save(train(args.seed, args.count, args.vocab), args.out)


if __name__ == "__main__":
    main()
