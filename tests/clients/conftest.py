"""What every Python client's checks share: the servers, and what the server says it can do."""

import json
import os
import urllib.error
import urllib.request

import pytest

MODEL = "penstock-tiny"


def _url(name):
    return os.environ[f"PENSTOCK_{name}"]  # noqa: TID251 - set by run.py


@pytest.fixture(scope="session")
def url():
    """The real server's base URL, ending in /v1."""
    return _url("URL")


@pytest.fixture(params=["FAILING_URL", "DYING_URL"])
def broken_url(request):
    """Servers whose streams end early: with an error event, and with nothing at all."""
    return _url(request.param)


@pytest.fixture(scope="session")
def needs(url):
    """Skips a check only when the server itself answers that it cannot do this."""

    def check(path, **fields):
        body = json.dumps({"model": MODEL, **fields}).encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"{url}{path}", body, headers)
        try:
            urllib.request.urlopen(request, timeout=120).read()
        except urllib.error.HTTPError as refusal:
            error = json.load(refusal)["error"]
            if error.get("code") in ("unsupported_parameter", "unknown_url", "not_found_error"):
                pytest.skip(f"the server answers {refusal.code}: {error['message']}")

    return check
