"""Every Prometheus metric, in a registry of its own per application."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from engines.api import EngineLoad, TierLoad
from gateway.exchange import Exchange, Outcome
from gateway.opened import Workers

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_GAP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 5)

_GAUGES = (
    ("penstock_running_sequences", "Sequences in the running batch", "running"),
    ("penstock_waiting_requests", "Requests not in the batch yet, or preempted", "waiting"),
    ("penstock_waiting_tokens", "Prompt tokens that wait to be computed", "waiting_tokens"),
    ("penstock_kv_blocks_used", "KV blocks held by requests", "blocks_used"),
    ("penstock_kv_blocks_total", "KV blocks in all", "blocks_total"),
)
_COUNTERS = (
    ("penstock_steps", "Engine steps", "steps"),
    ("penstock_preemptions", "Sequences preempted to free blocks", "preemptions"),
    ("penstock_prefix_hit_tokens", "Prompt tokens found in the prefix cache", "prefix_hit_tokens"),
    ("penstock_prefix_query_tokens", "Prompt tokens looked up in it", "prefix_query_tokens"),
    ("penstock_drafted_tokens", "Output tokens guessed ahead", "drafted_tokens"),
    ("penstock_accepted_tokens", "Of those, what was then said", "accepted_tokens"),
)
_TIERS = MappingProxyType({0: "device", 1: "host", 2: "disk"})
_TIER_GAUGES = (
    ("blocks", "KV blocks that can be found in a tier", "blocks"),
    ("bytes", "Memory or disk that those take", "bytes"),
)
_TIER_COUNTERS = (
    ("stored_blocks", "KV blocks that came to a tier", "stored"),
    ("evicted_blocks", "KV blocks that had to go for others", "evicted"),
    ("hit_blocks", "KV blocks that were found in a tier for a request", "hits"),
    ("restored_blocks", "KV blocks that went back to a faster tier", "restored"),
    ("failed_blocks", "KV blocks that were not what was stored", "failures"),
    ("dropped_blocks", "KV blocks that were not stored, as the tier was too slow", "dropped"),
)
_PLACEMENTS = (
    ("hits", "Requests sent to a worker that has some of the prompt cached", "hits"),
    ("misses", "Requests for which no worker that was asked has", "misses"),
    ("matched_tokens", "Prompt tokens that those are thought to have", "matched_tokens"),
)


class _LoadCollector(Collector):
    """Asks the engine for its load when scraped, so that no gauge can be stale."""

    def __init__(self, load: Callable[[], EngineLoad], block_size: int) -> None:
        self._load = load
        self._block_size = block_size

    def collect(self) -> Iterator[Metric]:
        load = self._load()
        yield GaugeMetricFamily(
            "penstock_tokens_in_flight",
            "Tokens of requests: in blocks, each counted as full, and waiting to be computed",
            value=load.blocks_used * self._block_size + load.waiting_tokens,
        )
        for name, doc, attribute in _GAUGES:
            yield GaugeMetricFamily(name, doc, value=getattr(load, attribute))
        for name, doc, attribute in _COUNTERS:
            yield CounterMetricFamily(name, doc, value=getattr(load, attribute))
        yield from _tier_metrics(load.tiers)


def _tier_metrics(loads: Sequence[TierLoad]) -> Iterator[Metric]:
    """Of tiers that there are: no engine has to tell of any, and most have one."""
    for kind, named in ((GaugeMetricFamily, _TIER_GAUGES), (CounterMetricFamily, _TIER_COUNTERS)):
        for name, doc, attribute in named:
            family = kind(f"penstock_kv_tier_{name}", doc, labels=["tier"])
            for load in loads:
                if load.tier in _TIERS:  # a later worker may have more
                    family.add_metric([_TIERS[load.tier]], getattr(load, attribute))
            yield family


class _WorkerCollector(Collector):
    """Asks how the workers are when scraped."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        at = self._workers
        yield GaugeMetricFamily("penstock_replicas_up", "Replicas that there are", value=at.up)
        yield GaugeMetricFamily(
            "penstock_replicas", "Replicas that there should be", value=at.total
        )
        yield CounterMetricFamily(
            "penstock_worker_restarts", "Replicas that were opened again", value=at.restarts
        )
        yield CounterMetricFamily(
            "penstock_migrations", "Streams that went on in another replica", value=at.migrations
        )
        sent = CounterMetricFamily(
            "penstock_worker_requests", "Requests sent to a worker", labels=["worker"]
        )
        for worker, count in at.placements.requests.items():
            sent.add_metric([worker], count)
        yield sent
        for name, doc, attribute in _PLACEMENTS:
            value = getattr(at.placements, attribute)
            yield CounterMetricFamily(f"penstock_prefix_route_{name}", doc, value=value)


class RedisCounts(Protocol):
    """Commands of a link, by what for."""

    @property
    def commands(self) -> Mapping[str, int]:
        """Sent."""

    @property
    def failures(self) -> Mapping[str, int]:
        """Of these, without an answer to go by."""

    @property
    def skipped(self) -> Mapping[str, int]:
        """Not sent."""


class RedisLinkCounts(Protocol):
    """What a link to Redis tells an operator."""

    @property
    def counts(self) -> RedisCounts:
        """What it was asked for."""

    @property
    def up(self) -> bool:
        """Whether it answers."""

    @property
    def openings(self) -> int:
        """How often it went down."""

    @property
    def silences(self) -> int:
        """How often nobody waited for it, for it said nothing."""


class _RedisCollector(Collector):
    """Asks how Redis is, and what it was asked for, when scraped."""

    def __init__(self, link: RedisLinkCounts) -> None:
        self._link = link

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "penstock_redis_up", "Whether Redis answers", value=float(self._link.up)
        )
        yield CounterMetricFamily(
            "penstock_redis_breaker_openings", "Times it went down", value=self._link.openings
        )
        yield CounterMetricFamily(
            "penstock_redis_silences",
            "Times it said nothing for so long that nobody waited for it",
            value=self._link.silences,
        )
        for name, doc, counted in (
            ("commands", "Commands sent, by what for", self._link.counts.commands),
            ("failures", "Of these, without an answer to go by", self._link.counts.failures),
            ("skipped", "Commands not sent, for it was down", self._link.counts.skipped),
        ):
            family = CounterMetricFamily(f"penstock_redis_{name}", doc, labels=["purpose"])
            for purpose, count in counted.items():
                family.add_metric([purpose], count)
            yield family


class _LogCollector(Collector):
    """Asks the log what it had to drop."""

    def __init__(self, dropped: Callable[[], int]) -> None:
        self._dropped = dropped

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "penstock_log_lines_dropped", "Lines that nobody took", value=self._dropped()
        )


class Metrics:
    """What the gateway counts. Labels come from closed sets: routes, statuses, outcomes."""

    def __init__(self, version: str) -> None:
        # They double the series to say when the process began.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "penstock_requests", "HTTP requests", ["route", "status"], registry=registry
        )
        self._duration = Histogram(
            "penstock_request_seconds",
            "From first byte in to last byte out",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._aborts = Counter(
            "penstock_aborts", "Calls that ended early, by cause", ["cause"], registry=registry
        )
        self._resumed = Counter(
            "penstock_streams_resumed", "Streams that a reader came back to", registry=registry
        )
        self._adopted = Counter(
            "penstock_responses_adopted",
            "Responses in the background that were gone on with when their gateway was gone",
            registry=registry,
        )
        self._prompt = Counter("penstock_prompt_tokens", "Prompt tokens served", registry=registry)
        self._generated = Counter("penstock_generated_tokens", "Tokens sent", registry=registry)
        self._cached = Counter(
            "penstock_cached_tokens", "Prompt tokens not computed again", registry=registry
        )
        self._ttft = Histogram(
            "penstock_time_to_first_token_seconds",
            "From request to first token",
            buckets=_SECONDS,
            registry=registry,
        )
        self._gap = Histogram(
            "penstock_inter_token_seconds",
            "Between tokens of one choice",
            buckets=_GAP_SECONDS,
            registry=registry,
        )
        self._in_flight = Gauge("penstock_requests_in_flight", "Open requests", registry=registry)
        Info("penstock_build", "What is running", registry=registry).info({"version": version})

    def watch(self, load: Callable[[], EngineLoad], block_size: int) -> None:
        """Export an engine's load from now on."""
        self.registry.register(_LoadCollector(load, block_size))

    def watch_workers(self, workers: Workers) -> None:
        """Export how an engine's workers are from now on."""
        self.registry.register(_WorkerCollector(workers))

    def watch_redis(self, link: RedisLinkCounts) -> None:
        """Export how Redis is from now on."""
        self.registry.register(_RedisCollector(link))

    def watch_responses(self, count: Callable[[], int], size: Callable[[], int]) -> None:
        """Export what is stored of responses from now on."""
        for name, doc, value in (
            ("penstock_stored_responses", "Responses kept, live ones included", count),
            ("penstock_stored_response_bytes", "Room they take", size),
        ):
            Gauge(name, doc, registry=self.registry).set_function(value)

    def watch_log(self, dropped: Callable[[], int]) -> None:
        """Export how many lines of the log nobody took from now on."""
        self.registry.register(_LogCollector(dropped))

    def begin(self) -> None:
        self._in_flight.inc()

    def finish(self, exchange: Exchange, now: float) -> None:
        """Count a request that has ended."""
        self._in_flight.dec()
        self._requests.labels(exchange.route, str(exchange.status)).inc()
        self._duration.labels(exchange.route).observe(now - exchange.started)
        if exchange.outcome is not Outcome.ANSWERED:
            self._aborts.labels(exchange.outcome.value).inc()
        self._prompt.inc(exchange.prompt_tokens)
        self._generated.inc(exchange.completion_tokens)
        self._cached.inc(exchange.cached_tokens)

    def resumed(self) -> None:
        """A reader came back to a stream."""
        self._resumed.inc()

    def adopted(self) -> None:
        """A response in the background goes on here."""
        self._adopted.inc()

    def first_token(self, seconds: float) -> None:
        self._ttft.observe(seconds)

    def token_gap(self, seconds: float) -> None:
        self._gap.observe(seconds)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
