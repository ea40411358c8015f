"""What tells one prefix cache from another, as the one text that TensorRT-LLM takes. Pure.

It keeps adapters apart by itself, but not all versions say in their events of which one a block is.
"""


def salt_text(salt: bytes, adapter: str) -> str:
    """Empty where there is neither."""
    return f"{salt.hex()}+{adapter}" if adapter else salt.hex()


def read_salt(text: str) -> tuple[bytes, str]:
    """Salt and adapter. Raises ValueError for a text that is not ours."""
    salt, _, adapter = text.partition("+")
    return bytes.fromhex(salt), adapter
