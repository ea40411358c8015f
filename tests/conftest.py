"""Fixtures that every test may use."""

import os

import pytest

# Spinning OpenMP threads starve whatever shares the cores; see docs/performance.md. Must be set
# before torch is imported, and this file is read before any test.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # noqa: TID251


@pytest.fixture
def anyio_backend():
    """Async tests run on asyncio, the loop the gateway runs on."""
    return "asyncio"
