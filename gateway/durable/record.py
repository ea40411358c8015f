"""The record of a response in the background: all that another gateway needs to go on with it."""

import json
from dataclasses import dataclass

from gateway.auth import Caller

_VERSION = 1


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One call, whose it is, and how it was shown when it began."""

    stem: str  # of its id
    now: int
    seed: int
    caller: Caller  # its quota has been charged
    shown: bytes  # the response object, queued
    body: bytes

    def pack(self) -> bytes:
        caller = self.caller
        head = {
            "version": _VERSION, "stem": self.stem, "now": self.now, "seed": self.seed,
            "salt": caller.salt.hex(), "tenant": caller.tenant.hex(), "key": caller.name,
            "weight": caller.weight, "group": caller.group_salt.hex(),
            "shown_bytes": len(self.shown),
        }  # fmt: skip
        return json.dumps(head).encode() + b"\n" + self.shown + self.body


def unpack_record(packed: bytes) -> RunRecord:
    """Raises ValueError for what another version has written."""
    head, _, rest = packed.partition(b"\n")
    told = json.loads(head)
    if not isinstance(told, dict) or told.get("version") != _VERSION:
        raise ValueError("a record of another version")
    try:
        caller = Caller(
            bytes.fromhex(told["salt"]),
            bytes.fromhex(told["tenant"]),
            str(told["key"]),
            float(told["weight"]),
            group_salt=bytes.fromhex(told["group"]),
        )
        shown = int(told["shown_bytes"])
        return RunRecord(
            str(told["stem"]), int(told["now"]), int(told["seed"]), caller,
            rest[:shown], rest[shown:],
        )  # fmt: skip
    except (KeyError, TypeError) as error:
        raise ValueError(f"a record without {error}") from None
