"""What the collector of garbage no longer looks through once a server is ready."""

import gc

from gateway.readiness import settle_memory


def test_what_is_loaded_is_not_looked_through_again():
    """All that there is by then; what comes later is looked through as ever."""
    try:
        settle_memory()
        assert gc.get_freeze_count() > 10_000
        later = [[] for _ in range(10)]
        assert sum(each is one for each in later for one in gc.get_objects()) == 10
        assert len(gc.get_objects()) < gc.get_freeze_count() / 10
    finally:
        gc.unfreeze()
