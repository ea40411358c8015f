"""What every object of one answer repeats: its id, time, model name and fingerprint."""

import hashlib
from dataclasses import dataclass

from openai_compat.served import CallContext, ServedModel


@dataclass(frozen=True, slots=True)
class Identity:
    """`model` is the name the client used, which may be an alias."""

    id: str
    created: int
    model: str
    fingerprint: str


def identity(prefix: str, asked: str, model: ServedModel, call: CallContext) -> Identity:
    """The identity of the answer to a call."""
    return Identity(f"{prefix}-{call.id}", call.now, asked, fingerprint(model))


def fingerprint(model: ServedModel) -> str:
    """Changes when the model or the shape it is served in changes, and with nothing else."""
    info = model.info
    seen = f"{info.model}\0{info.max_context}\0{info.vocab_size}\0{model.tokenizer.vocab_size}"
    if model.adapter:
        seen += f"\0{model.adapter}"
    return "fp_" + hashlib.blake2b(seen.encode(), digest_size=5).hexdigest()
