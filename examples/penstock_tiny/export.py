"""Export a checkpoint as bfloat16 safetensors with the configuration files."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import torch
from tokenizer import CONTEXT
from train import new_model
from transformers import AutoTokenizer, GenerationConfig, LlamaForCausalLM


def export(checkpoint: Path, out: Path) -> str:
    """Write the model files into `out` beside the tokenizer; return the sha256 of the weights."""
    tokenizer = AutoTokenizer.from_pretrained(out)
    state = torch.load(checkpoint, weights_only=True)
    model = new_model(len(tokenizer))
    model.load_state_dict(state["model"])
    model = model.to(torch.bfloat16)
    stop = [tokenizer.convert_tokens_to_ids(t) for t in ("<|im_end|>", "<|endoftext|>")]
    model.generation_config = GenerationConfig(
        eos_token_id=stop, pad_token_id=stop[1], do_sample=True, temperature=0.7, top_p=0.9
    )
    model.config.eos_token_id = stop[0]
    model.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)
    check(out)
    digest = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    print(f"step {state['step']}, {state['seen']} tokens")
    return digest


def check(out: Path) -> None:
    """Load what was written and make sure that it is a working Llama of the promised size."""
    model = LlamaForCausalLM.from_pretrained(out)
    size = (out / "model.safetensors").stat().st_size
    if size > 16_000_000:
        raise ValueError(f"the weights take {size} bytes, more than 16 MB")
    if model.config.max_position_embeddings != CONTEXT:
        raise ValueError("the context length differs from the tokenizer's")
    if not torch.isfinite(model(torch.arange(9)[None]).logits).all():
        raise ValueError("the exported model gives numbers that are not finite")


def main() -> None:
    """Export and print the digest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    print(export(args.checkpoint, args.out))


if __name__ == "__main__":
    main()
