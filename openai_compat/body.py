"""Request bytes to one JSON object, strictly; nothing of the input ever appears in a refusal."""

import msgspec
import numpy as np

from openai_compat.errors import RequestRejected

MAX_CONTAINERS = 50_000  # a chat of 2048 messages in parts has about 10,000
MAX_EXPONENTS = 1000  # three times what a full logit_bias could hold
_BRACKETS = b"[]{}"
_QUOTE = np.uint8(ord('"'))
_MIDDLE = np.int8(ord("\\"))  # ASCII has exactly the backslash between [ and ]
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in _BRACKETS)
_CURLY_TO_SQUARE = bytes.maketrans(b"{}", b"[]")
_DIGITS_TO_ZERO = bytes.maketrans(b"123456789E", b"000000000e")


def parse_body(raw: bytes, *, max_depth: int = 64) -> dict[str, object]:
    """The object in `raw`. Raises `RequestRejected` for anything that is not strict JSON.

    NaN, Infinity, numbers beyond a double, invalid UTF-8, lone surrogates and trailing bytes are
    refused. Depth and the number of arrays and objects are checked before anything is built: a
    million empty arrays take 0.2 to 0.6 s to make, a million numbers 0.01; but a million like 1e300
    take 11 s, so numbers with an exponent are counted too. Of a repeated key the last one counts;
    the body is parsed only here, so no two readers can take different ones.
    """
    _check_containers(raw, max_depth)
    _check_exponents(raw)
    try:
        value = msgspec.json.decode(raw)
    except UnicodeDecodeError:
        raise _malformed("the body is not valid UTF-8") from None
    except msgspec.ValidationError as error:
        if "out of range" not in str(error):
            raise _malformed("the body is not valid JSON") from None
        raise _malformed("a number is too long or beyond a double") from None
    except (msgspec.MsgspecError, RecursionError, ValueError):
        raise _malformed(
            "the body is not valid JSON (NaN, Infinity and lone surrogates are not JSON)"
        ) from None
    if not isinstance(value, dict):
        raise _malformed("the body must be a JSON object")
    return value


def _malformed(message: str) -> RequestRejected:
    return RequestRejected(f"Bad request body: {message}.", code="invalid_json")


def _check_containers(raw: bytes, max_depth: int) -> None:
    """Refuse too many or too deeply nested arrays and objects; brackets in strings are text.

    Linear, and without a Python step per byte: 2 MiB of brackets take some milliseconds.
    """
    if raw.count(b"[") + raw.count(b"{") <= max_depth:
        return
    outside = _outside_of_strings(raw)
    containers = outside.count(b"[") + outside.count(b"{")
    if containers > MAX_CONTAINERS:
        raise _malformed(
            f"the body has {containers} arrays and objects; the limit is {MAX_CONTAINERS}"
        )
    if _deeper_than(outside, max_depth):
        raise _malformed(f"the body is nested deeper than {max_depth} levels")


def _check_exponents(raw: bytes) -> None:
    if _exponents(raw) <= MAX_EXPONENTS:
        return
    exponents = _exponents(_outside_of_strings(raw))
    if exponents > MAX_EXPONENTS:
        raise _malformed(
            f"the body has {exponents} numbers with an exponent; the limit is {MAX_EXPONENTS}"
        )


def _exponents(text: bytes) -> int:
    zeros = text.translate(_DIGITS_TO_ZERO)
    return zeros.count(b"0e0") + zeros.count(b"0e-") + zeros.count(b"0e+")


def _outside_of_strings(raw: bytes) -> bytes:
    """`raw` less its strings, by array operations: no Python object per string, and no lock held.

    Split at its quotes instead, 2 MiB of keys held up every other thread for 60 ms.
    """
    # Without escaped backslashes and escaped quotes, every other quote begins a string.
    unescaped = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    text = np.frombuffer(unescaped, dtype=np.uint8)
    inside = np.bitwise_xor.accumulate(text == _QUOTE)
    return text[~inside].tobytes()


def _deeper_than(outside: bytes, limit: int) -> bool:
    brackets = outside.translate(_CURLY_TO_SQUARE, _NOT_BRACKETS)
    if b"[" * (limit + 1) in brackets:
        return True  # the plain attack, without the arrays below
    if not brackets:
        return False
    steps = _MIDDLE - np.frombuffer(brackets, dtype=np.int8)  # [ is +1, ] is -1
    return bool(np.cumsum(steps, dtype=np.int32).max() > limit)
