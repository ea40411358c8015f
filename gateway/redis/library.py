"""The functions that run inside Redis: one library, made of the files beside this one.

`penstock redis-setup` puts it there; gateways and workers only call it.
"""

import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files

NAME = "penstock"
# Raised with every change after which an older gateway or worker could not call these functions, or
# a newer one not those of before.
VERSION = 1
VERSION_FUNCTION = "penstock_version"
_MARK = re.compile(r"^-- version (\d{1,9}) ([0-9a-f]{16})$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class LibraryVersion:
    """Which library is there: the number says what may be called, the digest what exactly it is."""

    number: int
    digest: str

    def __str__(self) -> str:
        return f"{self.number} {self.digest}"


def own_version() -> LibraryVersion:
    """Of the library that this version of Penstock has."""
    return LibraryVersion(VERSION, hashlib.sha256(_body().encode()).hexdigest()[:16])


def source() -> str:
    """The library in Lua, as FUNCTION LOAD takes it."""
    version = own_version()
    return (
        f"#!lua name={NAME}\n-- version {version}\n"
        "redis.register_function{"
        f"function_name='{VERSION_FUNCTION}', flags={{'no-writes', 'allow-stale'}},"
        f" callback=function() return '{version}' end}}\n{_body()}"
    )


def version_of(code: str) -> LibraryVersion | None:
    """The version that a library's source, or the version function, tells; None: none of ours."""
    match = _MARK.search(code) or _MARK.search(f"-- version {code}")
    return LibraryVersion(int(match[1]), match[2]) if match else None


def _body() -> str:
    """Each file in a block of its own, so that their local names do not meet."""
    folder = files("gateway.redis") / "functions"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".lua"))
    parts = [f"do\n{(folder / name).read_text(encoding='utf-8')}end\n" for name in names]
    return "".join(parts)
