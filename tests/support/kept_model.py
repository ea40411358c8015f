"""What the runs of a worker owe to whom, told from what the engine has handed out alone."""

from dataclasses import dataclass, field

from engines.wire.events import event_of
from tests.support.kept_engine import logprob, token

CONTEXT = b"context"


@dataclass(eq=False)
class Owed:
    """One request on the engine, as it should stand."""

    name: str
    stream: object
    attempt: int | None  # None: it is not kept
    begins: list[int]  # from where on it can be told
    holder: "Ear | None" = None
    watchers: list["Ear"] = field(default_factory=list)
    size: int = 0  # once it has ended
    forgotten_at: float | None = None
    gone: bool = False

    @property
    def ears(self):
        return [*self.watchers, *([self.holder] if self.holder else [])]

    def drop(self, ear):
        if self.holder is ear:
            self.holder = None
        elif ear in self.watchers:
            self.watchers.remove(ear)


@dataclass(eq=False)
class Ear:
    """One handle of one session: what its gateway knows, and which errors it must yet hear."""

    line: object
    handle: int
    run: Owed | None = None
    positions: list[int] = field(default_factory=list)
    ended: set[int] = field(default_factory=set)
    unwanted: set[int] = field(default_factory=set)  # choices; what was on its way may yet come
    owed: list[str] = field(default_factory=list)
    failed_by: str = ""
    let_go: bool = False  # its gateway listens no more

    def hear(self, delta):
        """Dense, in order, true, and nothing after an end."""
        if self.let_go:
            return
        assert not self.failed_by, f"something after {self.failed_by}"
        if delta.HasField("failure"):
            assert self.owed, f"{delta.failure.kind} that nobody owes"
            self.failed_by = self.owed.pop(0)
            assert delta.failure.kind == self.failed_by
            return
        choice, begin = delta.choice, self.positions[delta.choice]
        if choice in self.unwanted:
            return
        assert choice not in self.ended, "something after the end of a choice"
        assert delta.position == begin, f"at {delta.position}, where {begin} was next"
        request = self.run.stream.request
        event = event_of(delta, logprobs=request.sampling.logprobs is not None)
        places = range(begin, begin + len(event.tokens))
        seed = request.sampling.seed
        assert event.tokens == [token(seed, choice, place) for place in places]
        if event.logprobs is not None:
            assert event.logprobs == [logprob(seed, choice, place) for place in places]
        assert event.tokens or event.finish, "an event that says nothing"
        self.positions[choice] += len(event.tokens)
        if event.finish is not None:
            assert event.finish.generated == self.positions[choice]
            self.ended.add(choice)

    def check_complete(self):
        """Nothing is missing once all was read."""
        if self.let_go:
            return
        assert not self.owed, f"never told: {self.owed}"
        if self.run is None or self.failed_by not in {"", "EngineDied"}:
            return
        stream = self.run.stream
        for choice, given in enumerate(stream.given):
            if choice in self.unwanted or stream.request.logs[choice] is None:
                continue
            if choice in stream.finished:
                assert choice in self.ended, "a finish that nobody told"
            assert self.positions[choice] == given, "tokens are missing"


class Model:
    """All of them. Its methods are the calls of `Runs`, with what should come of each."""

    def __init__(self, keeping, bound, now, size_of):
        self.size_of = size_of  # of a kept request, by its name
        self.keeping = keeping
        self.bound = bound
        self.now = now
        self.kept: dict[str, Owed] = {}  # those that have ended in the order of their ends
        self.by_stream: dict[object, Owed] = {}

    @property
    def kept_bytes(self):
        return sum(run.size for run in self.kept.values() if run.stream.over)

    def refuses_submit(self, name, attempt):
        before = self.kept.get(name) if attempt is not None else None
        return before is not None and attempt <= before.attempt

    def submit(self, name, attempt, stream, begins, ear):
        before = self.kept.get(name) if attempt is not None else None
        if before is not None:
            self._replace_holder(before, None)
            self._forget(before, "EngineUnavailable")
        ear.run = Owed(name, stream, attempt, list(begins), holder=ear)
        ear.positions = list(stream.given)
        self.by_stream[stream] = ear.run
        if attempt is not None:
            self.kept[name] = ear.run

    def attach(self, name, attempt, positions, ear):
        refused = self._refuses_attach(name, attempt, positions)
        if refused is not None:
            ear.owed.append(refused)
            return
        run = self.kept[name]
        if attempt:
            self._replace_holder(run, ear)
            run.attempt = attempt
        else:
            run.watchers.append(ear)
        ear.run, ear.positions = run, list(positions)
        if run.stream.failed:
            ear.owed.append("EngineDied")
        elif not run.stream.over:
            run.forgotten_at = None

    def _refuses_attach(self, name, attempt, positions):
        run = self.kept.get(name)
        if run is None or len(positions) != len(run.begins):
            return "RequestUnknown"
        logs = run.stream.request.logs
        for log, begin, place, given in zip(
            logs, run.begins, positions, run.stream.given, strict=True
        ):
            # Of what had ended elsewhere nothing can be told: whoever comes has heard of it.
            if not (place > 0 if log is None else begin <= place <= given):
                return "RequestUnknown"
        if attempt and attempt <= run.attempt:
            return "RequestTaken"
        return None

    def cancel(self, ear):
        run, ear.let_go = ear.run, True
        if run is not None and ear is run.holder:
            run.drop(ear)
            self._forget(run)
        elif run is not None:
            self.leave(ear)

    def leave(self, ear):
        run, ear.let_go = ear.run, True
        if run is None or ear not in run.ears:
            return
        run.drop(ear)
        if run.attempt is None:
            self._forget(run)
        elif not run.ears and not run.stream.over:
            run.forgotten_at = self.now() + self.keeping.unheard_s

    def end(self, stream):
        """The engine's stream was closed."""
        run = self.by_stream[stream]
        if run.gone or not stream.over:
            return  # it was cancelled
        if stream.failed:
            for ear in run.ears:
                ear.owed.append("EngineDied")
        if run.attempt is None or (stream.failed and run.ears):
            self._forget(run)
            return
        self.kept[run.name] = self.kept.pop(run.name)
        run.size = self.size_of(run.name)
        run.forgotten_at = self.now() + self.keeping.ended_s
        for oldest in [each for each in self.kept.values() if each.stream.over]:
            if self.kept_bytes > self.bound:
                self._forget(oldest)

    def expire(self):
        for run in list(self.kept.values()):
            if run.forgotten_at is not None and run.forgotten_at <= self.now():
                self._forget(run)

    def _replace_holder(self, run, ear):
        if run.holder is not None and not run.stream.over:
            run.holder.owed.append("RequestTaken")
        run.holder = ear

    def _forget(self, run, why="RequestUnknown"):
        if not run.stream.over:
            for ear in run.watchers:
                ear.owed.append(why)
        run.gone, run.holder, run.watchers = True, None, []
        if self.kept.get(run.name) is run:
            del self.kept[run.name]
