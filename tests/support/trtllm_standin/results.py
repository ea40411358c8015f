"""RequestOutput and CompletionOutput as they are: live, cumulative, yielding themselves."""

import asyncio
import contextlib

from tests.support.trtllm_standin.facts import check_names, facts


class RequestError(Exception):
    """One request failed; upstream's class of this name is told by its name."""


class Strict:
    """Only attributes of the table can be read from outside."""

    def __init__(self, version: str, kind: str, **values) -> None:
        object.__setattr__(self, "_state", values)
        object.__setattr__(self, "_fields", facts(version)[kind])
        object.__setattr__(self, "_kind", kind)

    def __getattr__(self, name: str):
        if name not in self._fields and name.startswith("__"):
            raise AttributeError(name)
        check_names([name], self._fields, self._kind)
        if name not in self._state:
            raise AttributeError(name)
        return self._state[name]


class RequestOutput(Strict):
    """What generate_async returns. Responses come from the simulator's thread."""

    def __init__(self, version: str, cancel) -> None:
        output = Strict(
            version, "CompletionOutput", index=0, token_ids=[], logprobs=[],
            finish_reason=None, stop_reason=None, disaggregated_params=None,
        )  # fmt: skip
        super().__init__(version, "RequestOutput", outputs=[output], finished=False)
        state = self._state
        state["abort"] = cancel
        object.__setattr__(self, "_loop", asyncio.get_running_loop())
        object.__setattr__(self, "_responses", asyncio.Queue())

    def respond(self, response) -> None:
        """From any thread: a dict of what is new, or an exception."""
        with contextlib.suppress(RuntimeError):  # the loop is gone
            self._loop.call_soon_threadsafe(self._responses.put_nowait, response)

    def __aiter__(self):
        return self

    async def __anext__(self):
        if self._state["finished"]:
            raise StopAsyncIteration
        response = await self._responses.get()
        if isinstance(response, BaseException):
            raise response
        output = self._state["outputs"][0]._state
        output["token_ids"] = output["token_ids"] + response["tokens"]
        output["logprobs"] = output["logprobs"] + response["logprobs"]
        if response["withheld"]:
            output["token_ids"] = output["token_ids"][: -response["withheld"]]
        output["disaggregated_params"] = response["handed_on"]
        output["finish_reason"] = response["finish_reason"]
        output["stop_reason"] = response["stop_reason"]
        self._state["finished"] = response["finish_reason"] is not None
        if response["cached"] is not None:
            self._state["cached_tokens"] = response["cached"]
        return self
