"""The trial of a call's grammar before anything starts: the client's 400 where it does not compile.

The engine would refuse it too, but a grammar that takes long to compile, or all memory, is met here
in a process of its own, which ends with it.
"""

import asyncio
from typing import Protocol

from engines.errors import InvalidRequest
from openai_compat.conversation.ask import Constraint
from openai_compat.conversation.constraint import suspects
from openai_compat.errors import RequestRejected


class Checker(Protocol):
    """Tries grammars; `engines.grammar.checker` has the one that is used."""

    async def check(self, source: str) -> None:
        """Raises InvalidRequest for a grammar that cannot be taken."""

    async def close(self) -> None:
        """Free what it holds. Idempotent."""


async def check_grammar(checker: Checker | None, constraint: Constraint | None) -> None:
    """Raises `RequestRejected` naming the field that the grammar, or what is wrong in it, is from.

    Where several schemas make a grammar, each is tried by itself to find the one at fault.
    """
    if checker is None or constraint is None:
        return
    try:
        await checker.check(constraint.source)
    except InvalidRequest as error:
        for suspect in await asyncio.to_thread(lambda: [*suspects(constraint)]):
            await check_grammar(checker, suspect)
        raise RequestRejected(
            f"'{constraint.param}' cannot be enforced: {error}.",
            param=constraint.param,
            code=constraint.code,
        ) from error
