"""One event loop for every test here.

gRPC has one poller for a whole process, which hands completions to the loop that asked for them, in
whatever loop it is heard: one that comes late, for a test that is over, fails the test that runs
then where the loop of the first is closed. A process of ours has one loop for life, too.
"""

import pytest


@pytest.fixture(scope="session")
def anyio_backend():
    """As everywhere, but once: else each test would have a loop of its own."""
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
async def _one_loop(anyio_backend):
    """Holds the loop open: it lives for as long as a fixture of it."""
    yield  # noqa: PT022 - without an end it would hold nothing
