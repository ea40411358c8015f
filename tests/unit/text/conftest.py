"""Where the bundled model lies."""

from pathlib import Path

import pytest

import engines


@pytest.fixture(scope="session")
def bundled():
    """The directory of the model shipped in the package."""
    return Path(engines.__file__).parent / "bundled" / "penstock_tiny"
