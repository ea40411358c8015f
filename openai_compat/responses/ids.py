"""Names of responses and of their items, all made from the id of the call, so that any replica
makes the same ones and an item's name tells whose it is.
"""

import re

_ITEM = re.compile(r"[a-z]{2,4}_([0-9a-zA-Z]{1,64})_i?[0-9]{1,6}")


def response_id(stem: str) -> str:
    """The id of the response that a call makes."""
    return f"resp_{stem}"


def output_id(prefix: str, stem: str, place: int) -> str:
    """The id of an output item."""
    return f"{prefix}_{stem}_{place}"


def input_id(prefix: str, stem: str, place: int) -> str:
    """The id of an input item that came without one."""
    return f"{prefix}_{stem}_i{place}"


def owner(item: str) -> str | None:
    """The response that made an item, told from its id; None for ids that are not ours."""
    found = _ITEM.fullmatch(item)
    return None if found is None else response_id(found[1])
