"""GET /events: the process tells what it does, as it changes."""

import json
import threading

import httpx2

from tests.support.live import ledger_opener, live


def test_events_follow_the_process_from_loading_to_the_end():
    """Each phase once, in order, and the stream ends with the process."""
    may_load = threading.Event()

    def opener(settings, report, on_death):
        report("model weights")
        may_load.wait(20)
        return ledger_opener([], settings, report, on_death)

    states = []
    with (
        live(wait=False, opener=opener) as server,
        httpx2.stream("GET", f"http://127.0.0.1:{server.port}/events", timeout=20) as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if not line.startswith("data: "):
                continue
            states.append(json.loads(line.removeprefix("data: ")))
            if states[-1]["phase"] == "model weights":
                may_load.set()
            if states[-1]["status"] == "ready":
                server.begin_exit()
    statuses = [state["status"] for state in states]
    assert statuses == sorted(statuses, key=["loading", "ready", "draining"].index)
    assert states[-1] == {"status": "draining", "phase": "finishing running requests"}
