"""Tiny fixed tokenizers, and a served model over one; nothing is read from disk or network."""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from engines.api import Capability, EngineInfo
from engines.text.template import ChatTemplate
from engines.text.tokenizer import Tokenizer as TextTokenizer
from openai_compat.served import CallContext, ServedModel

BOS, EOS = "<|bos|>", "<|im_end|>"
SPECIALS = (BOS, "<|im_start|>", EOS)
WORDS = (
    "hello", " hello", "world", " world", " the", " a", " of", " is", "ing", "ed", "er", "on",
    " quick", " brown", " fox", " sea", "stop", "END", " 1", " 2", " 3", "é", " né", "ü", "日本",
    " 🙂", "\n\n", "  ", "user", "assistant", "system", "tool",
)  # fmt: skip

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def byte_level(*, bos: bool = False) -> Tokenizer:
    """A byte-level BPE: 256 bytes, the words above merged from them, three special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: place for place, piece in enumerate(alphabet)}
    merges = []
    spell = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for word in WORDS:
        pieces = list(spell.pre_tokenize_str(word)[0][0])
        while len(pieces) > 1:
            joined = pieces[0] + pieces[1]
            if joined not in vocabulary:
                vocabulary[joined] = len(vocabulary)
                merges.append((pieces[0], pieces[1]))
            pieces[:2] = [joined]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIALS])
    tokenizer.add_tokens([AddedToken("<tool_call>", special=False)])
    if bos:
        tokenizer.post_processor = TemplateProcessing(
            single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
        )
    return tokenizer


def sentencepiece(*, strip: bool = True) -> Tokenizer:
    """A metaspace vocabulary with byte fallback, as Llama 2 (strip) and Gemma (no strip) have."""
    vocabulary: dict[str, int] = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    letters = sorted(
        {letter for word in WORDS for letter in word.replace(" ", "▁") if ord(letter) < 0x3000}
    )
    for piece in (*letters, "abcdefghijklmnopqrstuvwxyz"):
        for letter in piece:
            vocabulary.setdefault(letter, len(vocabulary))
    merges = []
    for word in ("▁hello", "▁world", "▁the", "ing"):
        pieces = list(word)
        while len(pieces) > 1:
            joined = pieces[0] + pieces[1]
            if joined not in vocabulary:
                vocabulary[joined] = len(vocabulary)
                merges.append((pieces[0], pieces[1]))
            pieces[:2] = [joined]
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True
        )
    )
    prepend = [normalizers.Prepend("▁")] if strip else []
    tokenizer.normalizer = normalizers.Sequence([*prepend, normalizers.Replace(" ", "▁")])
    stripping = [decoders.Strip(" ", 1, 0)] if strip else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *stripping]
    )
    tokenizer.add_special_tokens(
        [AddedToken(text, special=True) for text in ("<unk>", "<s>", "</s>")]
    )
    return tokenizer


def word_pieces() -> Tokenizer:
    """A decoder that is neither: words joined by spaces, with their own tidying."""
    words = ("[UNK]", "hello", "world", "##s", ",", ".", "do", "n't", "it", "'s", "a")
    tokenizer = Tokenizer(
        models.WordPiece({word: at for at, word in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def text_tokenizer(backend: Tokenizer | None = None) -> TextTokenizer:
    """Ours over a backend; the byte-level one unless told."""
    named = {"bos_token": BOS, "eos_token": EOS}
    return TextTokenizer(byte_level() if backend is None else backend, named)


def write_model_dir(path: Path, backend: Tokenizer, **config: object) -> Path:
    """A directory with tokenizer.json and tokenizer_config.json, as published models have."""
    path.mkdir(parents=True, exist_ok=True)
    backend.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return path


def served_model(
    *,
    template: str | None = CHATML,
    backend: Tokenizer | None = None,
    max_context: int = 512,
    capabilities: Iterable[Capability] = Capability,
    **changes: object,
) -> ServedModel:
    """A served model over the byte-level tokenizer, with every capability unless told."""
    tokenizer = text_tokenizer(backend)
    stop = tokenizer.token_id(EOS)
    values: dict[str, object] = {
        "name": "tiny",
        "created": 1_700_000_000,
        "info": EngineInfo(
            model="tiny",
            max_context=max_context,
            vocab_size=tokenizer.vocab_size,
            block_size=16,
            num_blocks=256,
            max_running=16,
            capabilities=frozenset(capabilities),
        ),
        "tokenizer": tokenizer,
        "template": None if template is None else ChatTemplate(template, tokenizer.named_tokens),
        "stop_tokens": frozenset() if stop is None else frozenset({stop}),
    }
    return ServedModel(**{**values, **changes})


CALL = CallContext(id="abc123", now=1_700_000_001, seed=7, cache_salt=b"salt")
