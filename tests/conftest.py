"""Fixtures that every test may use."""

import pytest


@pytest.fixture
def anyio_backend():
    """Async tests run on asyncio, the loop the gateway runs on."""
    return "asyncio"
