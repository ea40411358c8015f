"""A model's tokenizer.json: text to tokens and back, exactly as transformers reads it.

What the rest of the text layer relies on:

- A special token spelled out in a text is parsed as that token, as transformers does by default.
  Chat templates need it; it also means that a user who writes `<|im_end|>` in a message ends that
  message for the model. Roles come from the dialect's own list, never from the client's text.
- `special=True` lets the post-processor of tokenizer.json add what it adds (a leading BOS, say).
  That file alone decides: `add_bos_token` in tokenizer_config.json is ignored, as transformers 5
  does when tokenizer.json exists. Chat templates write their own BOS, so chats use `False`.
- Decoding skips special tokens and never "cleans up" spaces.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import tokenizers

from engines.errors import ModelRejected
from engines.text.detokenizer import Detokenizer, SpellingDetokenizer
from engines.text.model_files import read_object, read_text
from engines.text.spelling import ByteLevelSpelling, ContextualSpelling, Spelling

# The names tokenizer_config.json may give; chat templates see them under these names.
_NAMED = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)


class Tokenizer:
    """Encodes, decodes and describes single tokens. Immutable once made; safe to share."""

    def __init__(self, backend: tokenizers.Tokenizer, named: Mapping[str, str]) -> None:
        self._backend = backend
        self.named_tokens = dict(named)
        vocabulary = backend.get_vocab(with_added_tokens=True)
        self.vocab_size = 1 + max(vocabulary.values(), default=-1)
        added = backend.get_added_tokens_decoder()
        self._added = frozenset(added)
        self.special_tokens = frozenset(token for token, entry in added.items() if entry.special)
        self._spelling: Spelling = (
            ByteLevelSpelling(vocabulary, self.special_tokens)
            if _is_byte_level(backend)
            else ContextualSpelling(self.decode, vocabulary, self.special_tokens)
        )
        self._described: dict[int, tuple[str, bytes]] = {}  # at most one entry per token

    @classmethod
    def from_directory(cls, path: Path) -> "Tokenizer":
        """Load tokenizer.json and the named tokens. Raises `ModelRejected` naming the file."""
        file = path / "tokenizer.json"
        source = read_text(file)
        try:
            backend = tokenizers.Tokenizer.from_str(source)
        except Exception as error:  # the library raises bare Exception for every broken file
            raise ModelRejected(f"{file} is not a tokenizer: {error}") from error
        backend.no_truncation()
        backend.no_padding()
        config = read_object(path / "tokenizer_config.json", required=False)
        named = _named_tokens(config, path / "tokenizer_config.json")
        backend.add_special_tokens(
            [text for text in named.values() if backend.token_to_id(text) is None]
        )
        return cls(backend, named)

    @property
    def added_tokens(self) -> frozenset[int]:
        """Tokens that are whole words of their own, special or not."""
        return self._added

    def token_id(self, text: str) -> int | None:
        """The id of the token spelled exactly so, or None."""
        return self._backend.token_to_id(text)

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Tokens of a text; with `special`, also those the post-processor puts around it.

        As a batch of one: other threads run meanwhile, and offsets nobody wants are not made.
        """
        return self._backend.encode_batch_fast([text], add_special_tokens=special)[0].ids

    def encode_batch(
        self, inputs: Sequence[str | tuple[str, str]], *, special: bool, spelled: bool = False
    ) -> list[tokenizers.Encoding]:
        """Many texts, or pairs of texts, at once; `spelled`: with their pieces and offsets.

        Other threads run meanwhile: unlike in the backend's own `encode`, which holds up the event
        loop for as long as it takes (320 KiB: 500 ms on a busy machine; as a batch 10 ms).
        """
        encode = self._backend.encode_batch if spelled else self._backend.encode_batch_fast
        return encode(list(inputs), add_special_tokens=special)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones left out."""
        return self._backend.decode(list(tokens), skip_special_tokens=True)

    def detokenizer(
        self, after: Sequence[int] = (), *, spelled: frozenset[int] = frozenset()
    ) -> Detokenizer:
        """A fresh incremental decoder; `after` are tokens that the text goes on from.

        Special tokens among `spelled` become their own text, where others become nothing.
        """
        decoder = self._spelling.detokenizer(after)
        texts = {token: self.token_text(token) for token in spelled & self.special_tokens}
        return SpellingDetokenizer(decoder, texts) if texts else decoder

    def decode_spelled(self, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones spelled out."""
        return self._backend.decode(list(tokens), skip_special_tokens=False)

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """The vocabulary's entries for tokens that it has: not their text.

        Step by step, so that other threads run meanwhile; an encoding makes all of its at once.
        """
        known = {token: self._backend.id_to_token(token) or "" for token in set(tokens)}
        return [known[token] for token in tokens]

    def token_text(self, token: int) -> str:
        """What one token spells in the middle of a text; half a character is U+FFFD."""
        return self._describe(token)[0]

    def token_bytes(self, token: int) -> bytes:
        """The exact bytes one token adds, half a character included."""
        return self._describe(token)[1]

    def _describe(self, token: int) -> tuple[str, bytes]:
        known = self._described.get(token)
        if known is None:
            known = self._described[token] = self._spell(token)
        return known

    def _spell(self, token: int) -> tuple[str, bytes]:
        piece = self._backend.id_to_token(token)
        if piece is None:
            return "", b""
        if token in self._added:
            return piece, piece.encode()
        raw = self._spelling.token_bytes(token, piece)
        return raw.decode(errors="replace"), raw


def _is_byte_level(backend: tokenizers.Tokenizer) -> bool:
    decoder = backend.decoder
    return decoder is not None and json.loads(decoder.__getstate__()).get("type") == "ByteLevel"


def _named_tokens(config: Mapping[str, object], file: Path) -> dict[str, str]:
    """bos_token and friends, each a string or an object with its `content`."""
    named = {}
    for name in _NAMED:
        value = config.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if text is None:
            continue
        if not isinstance(text, str):
            raise ModelRejected(f"{file}: {name} must be a string or an object with `content`")
        named[name] = text
    return named
