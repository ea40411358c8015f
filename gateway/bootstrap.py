"""The composition root of the gateway: what answers from the first second on, and what serves.

No engine is named here: `gateway/opening.py` opens them, in a process that only computes.
"""

from dataclasses import dataclass
from time import monotonic
from types import MappingProxyType
from typing import TYPE_CHECKING

from starlette.types import ASGIApp

from engines.api import EngineInfo
from engines.embedding import PooledEmbedder
from engines.replicas import ReplicaSet
from gateway import __version__
from gateway.admission import Admission
from gateway.app import create_app
from gateway.claims import MemoryClaims
from gateway.dispatch import Dispatcher
from gateway.durable.responses import Durable
from gateway.lifecycle import Lifecycle, Serving
from gateway.memory_limiter import MemoryLimiter
from gateway.metrics import Metrics
from gateway.opened import Opened
from gateway.responses.store import MemoryResponseStore
from gateway.settings import Settings
from gateway.shared import Shared
from gateway.vector_dispatch import VectorDispatcher
from openai_compat.models import with_adapters

if TYPE_CHECKING:
    from gateway.redis.link import RedisLink


@dataclass(frozen=True, slots=True)
class Parts:
    """The process without its engine, which loads while these already answer."""

    app: ASGIApp
    lifecycle: Lifecycle
    metrics: Metrics


def build(settings: Settings, link: "RedisLink | None" = None) -> Parts:
    """Wire what answers from the first second on, and what it shares with other gateways."""
    lifecycle, metrics = Lifecycle(), Metrics(__version__)
    store = MemoryResponseStore(
        max_bytes=settings.response_store_bytes, ttl_s=settings.response_ttl_s, clock=monotonic
    )
    metrics.watch_responses(lambda: len(store), lambda: store.bytes)
    claims = MemoryClaims()
    shared = Shared(MemoryLimiter(monotonic), claims, store)
    if link is not None:
        metrics.watch_redis(link)
        shared = _over_redis(link, shared, claims, settings)
    app = create_app(settings, lifecycle, metrics, monotonic, shared)
    return Parts(app, lifecycle, metrics)


def _over_redis(
    link: "RedisLink", alone: Shared, known: MemoryClaims, settings: Settings
) -> Shared:
    """The same for all gateways together; without Redis each goes on alone."""
    from gateway.redis.claims import RedisClaims
    from gateway.redis.journal import RedisJournal, RedisLeases
    from gateway.redis.limiter import RedisLimiter
    from gateway.redis.responses import shared_responses

    return Shared(
        RedisLimiter(link, alone.limiter),
        RedisClaims(link, known),
        shared_responses(link, alone.store, settings),
        Durable(RedisJournal(link), RedisLeases(link)),
    )


def room(settings: Settings, info: EngineInfo, replicas: int) -> int:
    """How many sequences may be in flight: as many as run in all replicas, and a queue."""
    return info.max_running * replicas + settings.max_queued_requests


def serving(settings: Settings, opened: Opened, metrics: Metrics) -> Serving:
    """Wire a started engine to the calls that will come."""
    info = opened.engine.info
    replicas = 1 if opened.workers is None else opened.workers.total
    admission = Admission(
        max_sequences=room(settings, info, replicas),
        max_waiting_tokens=settings.max_queued_tokens,
        shared=settings.api_key_file is not None or len(settings.api_key) > 1,
    )
    metrics.watch(opened.engine.load, info.block_size)
    if opened.workers is not None:
        metrics.watch_workers(opened.workers)
    dispatcher = Dispatcher(opened.engine, admission, metrics, monotonic)
    models = MappingProxyType(with_adapters(opened.model))
    embedder = PooledEmbedder(opened.engine)
    vectors = VectorDispatcher(embedder, dispatcher, window=info.max_running)
    return Serving(
        opened.engine,
        models,
        dispatcher,
        vectors,
        checker=opened.checker,
        keeper=opened.engine if isinstance(opened.engine, ReplicaSet) else None,
        is_outlived=opened.workers is not None and opened.workers.outlive,
    )
