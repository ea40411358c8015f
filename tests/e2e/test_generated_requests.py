"""Requests generated from openapi.json: the document and the server agree, and nothing breaks."""

import pytest

from tests.support.command import served
from tests.support.generated import SERVER, run


@pytest.mark.slow
def test_no_generated_request_breaks_the_server_or_the_document():
    """A sample of `make test-schemathesis`: no 5xx, every refusal nested, no surprise."""
    with served(*SERVER) as server:
        tally = run(f"http://127.0.0.1:{server.port}", 500)
    assert not tally.wrong, "\n".join(tally.wrong[:5])
    assert tally.sent >= 500, tally
    assert tally.statuses[200] > 50, tally
    assert all(status < 500 for status in tally.statuses), tally
