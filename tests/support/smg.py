"""A server of the SMG protocol, on its published stubs, over the stand-in's executor.

It does what the .proto documents and, where that is silent, what TensorRT-LLM's own servicer does
by reading: the model's end token is taken out of the answer without a word, a call is known by its
id, and only CancelledError aborts one. It is no TensorRT-LLM.
"""

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
from smg_grpc_proto import trtllm_service_pb2 as pb
from smg_grpc_proto import trtllm_service_pb2_grpc as rpc

from engines.smg.engine import SmgEngine
from engines.smg.facts import Given
from tests.support.engines import Gated
from tests.support.trtllm_standin.simulator import Faults, Sequence, Simulator

VOCAB = 500
END = 499  # the model's end token
TOLD = {"model_id": "/models/test", "max_seq_len": 128, "vocab_size": VOCAB}


class Result:
    """What the executor responds to, from its thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.responses: asyncio.Queue = asyncio.Queue()

    def respond(self, response) -> None:
        self._loop.call_soon_threadsafe(self.responses.put_nowait, response)


@dataclass
class Servicer(rpc.TrtllmServiceServicer):
    """One model. `notes`: what became of calls that did not end by themselves."""

    simulator: Simulator
    told: dict
    trouble: str = "OK"
    salts: bool = False  # whether cache_salt_id parts the prefix cache
    keeps_end: bool = False  # returns the end token after all
    begins: asyncio.Event | None = None  # calls wait for it before they are known by their id
    abort_s: float = 0.0  # an abort is answered so much after it was done
    notes: list[str] = field(default_factory=list)
    requests: list = field(default_factory=list)
    at_yield: set[str] = field(default_factory=set)
    yields: int = 0
    open: dict[str, Sequence] = field(default_factory=dict)

    async def Generate(self, request, context):  # noqa: N802
        name, faults = request.request_id, self.simulator.faults
        self.requests.append(request)
        bias = np.asarray(request.embedding_bias, dtype=np.float32)
        refusal = faults.refuses or (
            f"embedding_bias length ({bias.size}) must match vocab_size"
            if bias.size not in {0, self.told["vocab_size"]}
            else ""
        )
        if refusal:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, refusal)
        try:
            if self.begins is not None:
                await self.begins.wait()
            async for response in self._run(request, bias if bias.size else None):
                self.yields += 1
                self.at_yield.add(name)
                yield response
                self.at_yield.discard(name)
        except asyncio.CancelledError:
            self.notes.append("cancelled")
            self._abort(name)
            raise
        except GeneratorExit:
            self.notes.append("left at a yield")
            raise
        except RuntimeError as error:
            self.trouble = str(error)
            await context.abort(grpc.StatusCode.INTERNAL, str(error))
        except Exception as error:  # noqa: BLE001
            await context.abort(grpc.StatusCode.INTERNAL, str(error))
        finally:
            self.open.pop(name, None)

    async def _run(self, request, bias):
        said = SimpleNamespace(tokens=[], logprobs=[], cached=0)
        result = self._submit(request, bias)
        reason = None
        while reason is None:
            response = await result.responses.get()
            if isinstance(response, BaseException):
                raise response
            reason = response["finish_reason"]
            tokens = response["tokens"]
            if response["cached"] is not None:
                said.cached = response["cached"]
            kept = tokens[: len(tokens) - self._swallowed(request, response)]
            said.logprobs += response["logprobs"]
            chunk = pb.GenerateStreamChunk(
                token_ids=kept,
                cached_tokens=said.cached,
                logprobs=_scores(kept, said.logprobs[len(said.tokens) :]),
            )
            said.tokens += kept
            if kept:
                yield pb.GenerateResponse(request_id=request.request_id, chunk=chunk)
        complete = pb.GenerateComplete(
            output_token_ids=said.tokens,
            finish_reason=reason,
            completion_tokens=len(said.tokens),
            cached_tokens=said.cached,
            logprobs=_scores(said.tokens, said.logprobs),
        )
        stop = response["stop_reason"]
        if stop is not None and stop != END:
            complete.matched_token_id = stop
        yield pb.GenerateResponse(request_id=request.request_id, complete=complete)

    def _submit(self, request, bias) -> Result:
        sampling, output = request.sampling_config, request.output_config
        assert (sampling.beam_width, sampling.num_return_sequences) == (1, 1)
        assert request.streaming
        stops = [] if request.ignore_eos else [END, *request.stop_token_ids]
        params = SimpleNamespace(
            max_tokens=request.max_tokens,
            stop_token_ids=stops,
            logprobs=output.logprobs if output.HasField("logprobs") else None,
            temperature=sampling.temperature if sampling.HasField("temperature") else 1.0,
            seed=sampling.seed,
            embedding_bias=bias,
        )
        salt = str(request.cache_salt_id) if self.salts else None
        result = Result()
        sequence = Sequence(
            list(request.tokenized.input_token_ids), params, salt, 0.5, result=result
        )
        self.open[request.request_id] = sequence
        self.simulator.submit(sequence)
        return result

    def _swallowed(self, request, response) -> int:
        if response["finish_reason"] != "stop":
            return 0
        if response["tokens"][-1] == END:
            return int(not self.keeps_end)
        return int(not request.include_stop_token_in_output) or response["withheld"]

    def _abort(self, name: str) -> bool:
        sequence = self.open.pop(name, None)
        if sequence is not None:
            self.simulator.abort(sequence)
            nothing = {"tokens": [], "logprobs": [], "withheld": 0, "stop_reason": None}
            sequence.result.respond({**nothing, "finish_reason": "cancelled", "cached": None})
        return sequence is not None

    async def Abort(self, request, context):  # noqa: N802
        found = self._abort(request.request_id)
        self.notes.append("aborted" if found else "abort of nothing")
        await asyncio.sleep(self.abort_s)
        return pb.AbortResponse(success=found)

    async def HealthCheck(self, request, context):  # noqa: N802
        return pb.HealthCheckResponse(status=self.trouble)

    async def GetModelInfo(self, request, context):  # noqa: N802
        return pb.GetModelInfoResponse(**self.told)


def _scores(tokens, entries) -> list:
    scores = []
    for token, entry in zip(tokens, entries, strict=False):
        top = [pb.TopLogprob(token_id=t, logprob=e.logprob) for t, e in entry.items()]
        scores.append(
            pb.TokenLogprob(token_id=token, logprob=entry[token].logprob, top_logprobs=top)
        )
    return scores


class Served:
    """An engine with a server of its own: what the contract calls an engine."""

    def __init__(self, kind: "Kind", given: Given, sizes: dict, **options) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="penstock-")
        self.address = f"unix:{Path(self.folder.name) / 'smg'}"
        self.engine = SmgEngine(self.address, given, **options)
        self.gate = None
        self._kind = kind
        self._sizes = sizes
        self.servicer = self.grpc = None

    @property
    def info(self):
        return self.engine.info

    @property
    def simulator(self) -> Simulator:
        return self.servicer.simulator

    async def start(self) -> None:
        if self.grpc is None:
            await self._serve()
        await self.engine.start()

    async def _serve(self) -> None:
        cache = {
            "tokens_per_block": self._sizes["block_size"],
            "max_tokens": self._sizes["num_blocks"] * self._sizes["block_size"],
        }
        args = {"kv_cache_config": cache, "max_batch_size": self._sizes["max_running"]}
        simulator = Simulator(args, VOCAB, self._kind.faults, {})
        simulator.gate = self.gate
        simulator._arrivals = 1  # the gate lets a first call through, which is not made here
        self.servicer = Servicer(simulator, self._kind.told, **self._kind.server)
        self.grpc = grpc.aio.server()
        rpc.add_TrtllmServiceServicer_to_server(self.servicer, self.grpc)
        self.grpc.add_insecure_port(self.address)
        await self.grpc.start()

    def generate(self, request):
        return self.engine.generate(request)

    def load(self):
        return self.engine.load()

    async def heard(self) -> None:
        """Wait until the server knows what was aborted here."""
        while self.engine._server._leaving:  # noqa: ASYNC110 - a test waits for a fact
            await asyncio.sleep(0)

    async def stop(self, grace_s: float) -> None:
        try:
            await self.engine.stop(grace_s)
        finally:
            if self.grpc is not None:
                await self.grpc.stop(0)
                if self.gate is not None:
                    self.gate.open()
                await asyncio.to_thread(self.simulator.close)
            self.folder.cleanup()


class _NoStep:
    def launch(self, plan):
        return None

    def collect(self, ticket):
        return None

    def close(self) -> None:
        return None


@dataclass
class Kind:
    """Makes engines in the sizes of tests/support/engines.py; any field of Given can be changed."""

    faults: Faults = field(default_factory=Faults)
    told: dict = field(default_factory=lambda: dict(TOLD))
    server: dict = field(default_factory=dict)  # of Servicer
    vocab_size: int = VOCAB
    block: int = 4

    def engine(self, *, on_death=None, health_s=5.0, **changes) -> Served:
        sizes = {"max_running": 8, "num_blocks": 200, "block_size": 4}
        sizes |= {name: changes.pop(name) for name in list(changes) if name in sizes}
        tokens = changes.pop("tokens_per_step", 64)
        given = Given(**{**sizes, "max_num_tokens": tokens, "ends": frozenset({END}), **changes})
        return Served(self, given, sizes, on_death=on_death, health_s=health_s)

    def gated(self, steps: int = 0, **changes) -> tuple[Served, Gated]:
        engine = self.engine(**changes)
        engine.gate = Gated(_NoStep(), steps)
        return engine, engine.gate

    async def heard(self, engine: Served) -> None:
        await engine.heard()
