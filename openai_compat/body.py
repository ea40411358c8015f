"""Request bytes to one JSON object, strictly; nothing of the input ever appears in a refusal."""

import msgspec
import numpy as np

from openai_compat.errors import RequestRejected

_BRACKETS = b"[]{}"
_MIDDLE = np.int8(ord("\\"))  # ASCII has exactly the backslash between [ and ]
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in _BRACKETS)
_CURLY_TO_SQUARE = bytes.maketrans(b"{}", b"[]")


def parse_body(raw: bytes, *, max_depth: int = 64) -> dict[str, object]:
    """The object in `raw`. Raises `RequestRejected` for anything that is not strict JSON.

    NaN, Infinity, numbers beyond a double, invalid UTF-8, lone surrogates and trailing bytes are
    refused. Depth is checked before anything recurses. Of a repeated key the last one counts; the
    body is parsed only here, so no two readers can take different ones.
    """
    if _deeper_than(raw, max_depth):
        raise _malformed(f"the body is nested deeper than {max_depth} levels")
    try:
        value = msgspec.json.decode(raw)
    except UnicodeDecodeError:
        raise _malformed("the body is not valid UTF-8") from None
    except (msgspec.MsgspecError, RecursionError, ValueError):
        raise _malformed(
            "the body is not valid JSON (NaN, Infinity and lone surrogates are not JSON)"
        ) from None
    if not isinstance(value, dict):
        raise _malformed("the body must be a JSON object")
    return value


def _malformed(message: str) -> RequestRejected:
    return RequestRejected(f"Bad request body: {message}.", code="invalid_json")


def _deeper_than(raw: bytes, limit: int) -> bool:
    """Whether brackets outside of strings nest deeper than `limit`.

    Linear, and without a Python step per byte: 2 MiB of brackets take about 0.02 s.
    """
    if raw.count(b"[") + raw.count(b"{") <= limit:
        return False
    # Without escaped backslashes and escaped quotes, every other part between quotes is a string.
    unescaped = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = b"".join(unescaped.split(b'"')[::2])
    brackets = outside.translate(_CURLY_TO_SQUARE, _NOT_BRACKETS)
    if b"[" * (limit + 1) in brackets:
        return True  # the plain attack, without the arrays below
    if not brackets:
        return False
    steps = _MIDDLE - np.frombuffer(brackets, dtype=np.int8)  # [ is +1, ] is -1
    return bool(np.cumsum(steps, dtype=np.int32).max() > limit)
