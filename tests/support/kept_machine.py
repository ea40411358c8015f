"""A Hypothesis state machine over the requests of a worker: who holds them, watches, and resumes.

Sessions and runs are the real ones, over an engine that says what the machine has it say; frames
are read when the machine likes. Whatever the order, each gateway gets the log from where it stands,
dense and true, one attempt at most holds a request, and in the end nothing is left.
"""

from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from engines import worker_runs
from engines.api import GenerationRequest, Kept, RequestId, Sampling
from engines.wire.pb import penstock_engine_pb2 as pb
from engines.wire.requests import request_message
from engines.worker_runs import Keeping, Runs
from engines.worker_session import Session
from tests.support.kept_engine import ToldEngine, token
from tests.support.kept_model import CONTEXT, Ear, Model
from tests.support.stepped_loop import SteppedLoop

NAMES = ["a", "b", "c"]
KEEPING = Keeping(unheard_s=15, ended_s=60)
lines = st.integers(0, 2)
attempts = st.integers(1, 4)
pick = st.integers(0, 1 << 10)  # one of what there is


@dataclass(eq=False)
class Line:
    """One session, and what its gateway has of it."""

    session: Session
    frames: object
    ears: dict[int, Ear] = field(default_factory=dict)
    reading: object = None
    number: int = 0

    def ear(self):
        """The next handle."""
        handle = len(self.ears) + 1
        self.ears[handle] = Ear(self, handle)
        return self.ears[handle]


async def _next(frames):
    return await anext(frames, None)


class KeptMachine(RuleBasedStateMachine):
    """Rules are what gateways, the engine and the clock may do."""

    @initialize(bound=st.sampled_from([400, 800, 1 << 20]), closes=st.booleans())
    def build(self, bound, closes):
        self.usual, worker_runs._KEPT_BYTES = worker_runs._KEPT_BYTES, bound
        self.bound, self.closes = bound, closes
        self.loop, self.troubles = SteppedLoop(), []
        self.loop.set_exception_handler(lambda _, context: self.troubles.append(context))
        self.draining, self.empty = False, True
        self.model = Model(KEEPING, bound, self.loop.time, self._size_of)
        self.engine = ToldEngine(self.model.end)
        self.runs = Runs(self.engine, KEEPING, self._note_empty)
        self.lines = [self._line() for _ in range(3)]

    def _size_of(self, name):
        return self.runs._kept[name].size

    def _note_empty(self):
        self.empty = True

    def _line(self):
        session = Session(self.runs, self.engine.load, lambda: self.draining)
        return Line(session, session.frames())

    # -- what gateways ask

    @rule(
        at=lines,
        name=st.sampled_from(NAMES),
        attempt=st.one_of(st.none(), st.integers(0, 4)),
        logs=st.lists(st.one_of(st.integers(0, 3), st.none()), min_size=1, max_size=3),
        logprobs=st.sampled_from([None, 1]),
        then=st.sampled_from([None] * 4 + ["cancel", "detach"]),
    )
    def submit(self, at, name, attempt, logs, logprobs, then):
        """`then` comes in the same frame, as from a client that leaves at once."""
        line, seed = self.lines[at], NAMES.index(name)
        if all(log is None for log in logs):
            logs = [0 for _ in logs]
        emitted = tuple(
            None if log is None else tuple(token(seed, choice, place) for place in range(log))
            for choice, log in enumerate(logs)
        )
        kept = None if attempt is None else Kept(CONTEXT, attempt)
        sampling = Sampling(max_tokens=1000, seed=seed, logprobs=logprobs)
        request = GenerationRequest(
            RequestId(name), (1, 2), sampling, len(logs), emitted=emitted, kept=kept
        )
        ear = line.ear()
        frame = pb.CommandFrame()
        frame.submits.add(handle=ear.handle, request=request_message(request))
        if then is not None:
            frame.cancels.add(handle=ear.handle, detach=then == "detach")
        self._send(line, frame, lambda: self._account(name, attempt, ear, then))

    def _account(self, name, attempt, ear, then):
        if not self.draining and self.model.refuses_submit(name, attempt):
            ear.owed.append("RequestTaken")
        elif self.draining or self.engine.refuses:
            ear.owed.append("EngineUnavailable")
        else:
            stream = self.engine.streams[-1]
            assert stream not in self.model.by_stream, "not given to the engine"
            self._check_begun(name, attempt, stream, ear)
            if then is not None:
                (self.model.cancel if then == "cancel" else self.model.leave)(ear)
        assert len(self.engine.streams) == len(self.model.by_stream), "what was refused runs"

    def _check_begun(self, name, attempt, stream, ear):
        """What it was submitted with may be told again, or not; what comes after, always."""
        begins = stream.given
        if attempt is not None and name in self.runs._kept:
            begins = self.runs._kept[name]._begins
            assert all(
                begin in (0, given) for begin, given in zip(begins, stream.given, strict=True)
            )
        self.model.submit(name, attempt, stream, begins, ear)

    @precondition(lambda self: self.model.kept)
    @rule(
        at=lines,
        which=pick,
        attempt=st.one_of(st.just(0), st.integers(1, 6)),
        places=st.lists(st.sampled_from([0, 0, 0, -1, -2, -5, 1]), min_size=3, max_size=3),
        more=st.sampled_from([0] * 8 + [1, -1]),
    )
    def attach(self, at, which, attempt, places, more):
        """From around the end of what is known; rarely with another number of choices."""
        line, kept = self.lines[at], list(self.model.kept.values())
        run = kept[which % len(kept)]
        positions = [
            max(0, given + place) for given, place in zip(run.stream.given, places, strict=False)
        ]
        positions = [*positions, 0] if more == 1 else positions[: len(positions) + more]
        self._attach(line, run.name, attempt, positions)

    @precondition(lambda self: self.engine.streams)
    @rule(at=lines, name=st.sampled_from([*NAMES, "nobody's"]), attempt=st.integers(0, 6))
    def attach_from_the_start(self, at, name, attempt):
        self._attach(self.lines[at], name, attempt, [0])

    def _attach(self, line, name, attempt, positions):
        ear = line.ear()
        frame = pb.CommandFrame()
        frame.attaches.add(handle=ear.handle, id=name, attempt=attempt, positions=positions)
        self._send(line, frame, lambda: self.model.attach(name, attempt, positions, ear))

    @rule(at=lines, which=pick, how=st.sampled_from(["cancel", "detach", "choice"]), choice=pick)
    def leave(self, at, which, how, choice):
        """Of one request; whoever hears of a choice may end it, for all read the same."""
        line = self.lines[at]
        ears = [ear for ear in line.ears.values() if ear.run is not None and not ear.let_go]
        if not ears:
            return
        ear = ears[which % len(ears)]
        choice %= len(ear.positions)
        frame = pb.CommandFrame()
        frame.cancels.add(
            handle=ear.handle,
            choice=choice if how == "choice" else None,
            detach=how == "detach",
        )
        if how == "choice":
            self._send(line, frame, lambda: ear.unwanted.add(choice))
        else:
            account = self.model.cancel if how == "cancel" else self.model.leave
            self._send(line, frame, lambda: account(ear))

    def _send(self, line, frame, account):
        """As the servicer does; the model hears of it before anything else happens."""

        def obey():
            if line.reading is not None and line.reading.done() and line.reading.result() is None:
                return  # drained: its call has ended, and nobody obeys
            line.session.obey(pb.CommandFrame.FromString(frame.SerializeToString()))
            if self.runs.busy:
                self.empty = False
            account()

        self.loop.within(obey)

    @rule(at=lines)
    def break_session(self, at):
        self._break(self.lines[at])
        self.lines[at] = self._line()

    def _break(self, line):
        def close():
            line.session.close()
            for ear in line.ears.values():
                self.model.leave(ear)

        self.loop.within(close)
        if line.reading is not None:
            line.reading.cancel()
        self.loop.turn(2)
        self.loop.within(lambda: self.loop.create_task(line.frames.aclose()))
        self.loop.turn(2)

    # -- what the engine does

    @precondition(lambda self: any(stream.open for stream in self.engine.streams))
    @rule(which=pick, choice=pick, count=st.integers(1, 4), last=st.sampled_from([False, True]))
    def say(self, which, choice, count, last):
        streams = [stream for stream in self.engine.streams if stream.open]
        stream = streams[which % len(streams)]
        choices = sorted(stream.open)
        stream.say(choices[choice % len(choices)], count, last=last)

    @precondition(lambda self: any(stream.open for stream in self.engine.streams))
    @rule(which=pick)
    def fail(self, which):
        streams = [stream for stream in self.engine.streams if stream.open]
        streams[which % len(streams)].break_down()

    @rule(refuses=st.sampled_from([False, False, True]))
    def change_mind(self, refuses):
        self.engine.refuses = refuses

    # -- time, and readers

    @rule(count=st.integers(1, 3))
    def turn(self, count):
        self.loop.turn(count)

    @rule(seconds=st.sampled_from([0.02, 5, 15, 60]))
    def pass_time(self, seconds):
        self.loop.turn(4)  # what was under way comes before
        self.loop.pass_time(seconds)
        self.model.expire()

    @rule(at=lines)
    def read(self, at):
        """All that the session has; when nobody reads for a while, events merge."""
        line = self.lines[at]
        for _ in range(20):
            if line.reading is None:
                line.reading = self.loop.create_task(_next(line.frames))
            self.loop.turn(8)  # a wait with a limit takes so many to end
            if not line.reading.done():
                return None
            frame, line.reading = line.reading.result(), None
            if frame is None:
                assert self.draining
                assert not self.runs.busy, "it ends while something runs"
                self._check_complete(line)
                return self.break_session(at)
            line.number += 1
            assert frame.number == line.number
            for delta in frame.deltas:
                line.ears[delta.handle].hear(delta)
        raise AssertionError("frames without an end")

    @rule()
    def come_to_rest(self):
        """Everybody has read everything."""
        self.loop.turn(6)
        for at in range(len(self.lines)):
            self.read(at)
            self._check_complete(self.lines[at])
        for stream, run in self.model.by_stream.items():
            assert stream.closed or not run.gone, "what nobody wants runs on"

    def _check_complete(self, line):
        for ear in line.ears.values():
            ear.check_complete()

    @precondition(lambda self: len(self.engine.streams) > 5)
    @rule()
    def drain(self):
        self.draining = True
        for line in self.lines:
            line.session.wake()

    # -- what always holds

    @invariant()
    def books_are_true(self):
        if not hasattr(self, "runs"):
            return
        assert not self.troubles, self.troubles
        assert all(stream.closings <= 1 for stream in self.engine.streams)
        busy = any(not stream.closed for stream in self.engine.streams)
        assert self.runs.busy == busy
        assert self.empty or busy
        assert not (self.empty and busy)
        assert self.runs._bytes == self.model.kept_bytes <= self.bound
        assert set(self.runs._kept) == set(self.model.kept)
        for name, run in self.runs._kept.items():
            owed = self.model.kept[name]
            assert self.runs.find(name) == (owed.attempt, CONTEXT)
            ears = [(ear.line.session, ear.handle) for ear in owed.ears]
            assert run.listeners == ears
        for line in self.lines:
            hearing = [ear.handle for ear in line.ears.values() if ear.run and ear in ear.run.ears]
            assert list(line.session._runs) == hearing, "a session remembers what it may not"

    def teardown(self):
        if not hasattr(self, "runs"):
            return
        try:
            self.come_to_rest()
            self._end()
        finally:
            worker_runs._KEPT_BYTES = self.usual
            self.loop.end()

    def _end(self):
        """With the worker, or when nobody has come for long enough."""
        for line in self.lines:
            self._break(line)
        if self.closes:
            self.loop.within(self.runs.close)
        else:
            self.loop.pass_time(KEEPING.unheard_s)
            self.loop.turn(4)
            self.loop.pass_time(KEEPING.ended_s)
        self.loop.turn(6)
        assert not self.runs.busy
        assert not self.runs._kept
        assert self.runs._bytes == 0
        assert not self.loop.timers, "timers are left"
        assert all(stream.closings == 1 for stream in self.engine.streams)
