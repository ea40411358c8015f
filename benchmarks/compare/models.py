"""Random models in the shapes of common small ones, as the hub publishes models, and as GGUF.

    python -m benchmarks.compare.models DIRECTORY [S M L] [--gguf LLAMA_CPP_SOURCE]

The weights are random and seeded: what is measured is work, not wit. The tokenizer is trained on
the Python files of the standard library, so nothing is downloaded.
"""

import argparse
import json
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TRAINED = 32_000  # tokens at most; a larger vocabulary has rows that no text reaches
MAX_CONTEXT = 4096
_SEED = 20_261_122
_CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Shape:
    """What determines how much work a token is; all of them tie the head to the embeddings."""

    kind: str  # of transformers
    vocabulary: int
    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int

    @property
    def parameters(self) -> int:
        """Without norms, which are some thousandths."""
        wide = self.hidden // self.heads * self.kv_heads
        layer = 2 * self.hidden * (self.hidden + wide) + 3 * self.hidden * self.inner
        return self.vocabulary * self.hidden + self.layers * layer

    def kv_bytes(self, width: int = 2) -> int:
        """Of one token, in all layers."""
        return 2 * self.layers * self.hidden // self.heads * self.kv_heads * width

    def flops(self, context: int = 0) -> int:
        """To compute one token behind so many."""
        return 2 * self.parameters + 4 * self.layers * self.hidden * context


SHAPES = {
    "S": Shape("llama", 16_384, 256, 704, 12, 8, 4),
    "M": Shape("llama", 32_000, 768, 2048, 12, 12, 4),
    "L": Shape("qwen2", 151_936, 896, 4864, 24, 14, 2),
}


def config_of(shape: Shape, **more: Any) -> Any:
    """What transformers calls its configuration."""
    from transformers import AutoConfig  # noqa: PLC0415 - figures are told without it

    return AutoConfig.for_model(
        shape.kind,
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=MAX_CONTEXT,
        tie_word_embeddings=True,
        **more,
    )


@cache
def trained(vocabulary: int) -> Tokenizer:
    """A byte-level BPE of the standard library's own source text."""
    home = Path(sysconfig.get_paths()["stdlib"])
    apart = {"site-packages", "test", "tests", "__pycache__"}
    files = [
        str(path)
        for path in sorted(home.rglob("*.py"))
        if not apart & set(path.relative_to(home).parts)
    ]
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train(files, trainer)
    return tokenizer


def write_tokenizer(shape: Shape, folder: Path) -> int:
    """The tokenizer's files; how many tokens it has."""
    tokenizer = trained(min(shape.vocabulary, TRAINED))
    tokenizer.save(str(folder / "tokenizer.json"))
    told = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": MAX_CONTEXT,
        "chat_template": _CHATML,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(told, indent=1))
    size: int = tokenizer.get_vocab_size()
    return size


def write_model(name: str, folder: Path) -> Path:
    """A model's directory, made where it is missing."""
    path = folder / name
    if (path / "model.safetensors").exists():
        return path
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    shape = SHAPES[name]
    path.mkdir(parents=True, exist_ok=True)
    size = write_tokenizer(shape, path)
    torch.manual_seed(_SEED)
    config = config_of(shape, eos_token_id=2, bos_token_id=None, pad_token_id=0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    with torch.no_grad():
        # Tokens without text, and those that end an answer, are never the likeliest.
        model.get_input_embeddings().weight[size:] = 0
        model.get_input_embeddings().weight[: len(SPECIALS)] *= 0.5
    model.save_pretrained(path)
    return path


def write_gguf(path: Path, source: Path, dtype: str = "bf16") -> Path:
    """The same model for llama.cpp, by its own converter."""
    made = path.with_name(f"{path.name}-{dtype}.gguf")
    if made.exists():
        return made
    # The converter knows a pre-tokenizer by the digest of what it does to a text, and so none that
    # was trained here: ours splits as GPT-2's. Nor should it look for another kind of tokenizer.
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]; sys.argv[1:3] = []\n"
        "import convert_hf_to_gguf as converter\n"
        "from conversion import base\n"
        "base.TextModel.get_vocab_base_pre = lambda self, tokenizer: 'gpt-2'\n"
        "base.TextModel._set_vocab_sentencepiece = base.TextModel._set_vocab_gpt2\n"
        "converter.main()"
    )
    where = [str(source), str(source / "gguf-py")]
    told = [str(path), "--outfile", str(made), "--outtype", dtype]
    subprocess.run([sys.executable, "-c", code, *where, *told], check=True)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gguf", type=Path, help="llama.cpp's source: write its format, too")
    parser.add_argument("--dtype", action="append", help="of the GGUF: bf16, q8_0, ...")
    parser.add_argument("model", nargs="*", default=list(SHAPES))
    given = parser.parse_args()
    for name in given.model:
        path = write_model(name, given.folder)
        print(f"{path}  {SHAPES[name].parameters / 1e6:.1f} M weights")
        for dtype in (given.dtype or ["bf16"]) if given.gguf else ():
            print(write_gguf(path, given.gguf, dtype))


if __name__ == "__main__":
    main()
