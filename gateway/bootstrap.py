"""The composition root: the only place that names concrete engines and wires the process.

Engines are imported when they are chosen: importing torch takes seconds, and a gateway of remote
workers never needs it.
"""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from types import MappingProxyType
from typing import TYPE_CHECKING

from starlette.types import ASGIApp

from engines.api import Capability, Embeds, Engine, EngineInfo
from engines.embedding import PooledEmbedder
from engines.errors import ModelRejected
from engines.grammar.checker import GrammarChecker
from engines.grammar.compiler import GrammarCompiler
from engines.grammar.vocabulary import read_vocabulary
from engines.limits import Limits
from engines.step import StepRunner
from engines.stepped import SteppedEngine
from engines.text.model_files import read_text
from gateway import __version__
from gateway.admission import Admission
from gateway.app import create_app
from gateway.dispatch import Dispatcher
from gateway.free_memory import free_memory_bytes
from gateway.kv_budget import KvBudget, KvNeed, plan_kv
from gateway.lifecycle import Lifecycle, Serving
from gateway.metrics import Metrics
from gateway.model_directory import TextSide, Writing, read_text_side
from gateway.model_syntax import choose_syntax
from gateway.settings import Settings
from gateway.vector_dispatch import VectorDispatcher
from openai_compat.choice import Ending
from openai_compat.served import ServedModel

if TYPE_CHECKING:
    from engines.torch.loading import LoadedModel

_log = logging.getLogger(__name__)

Report = Callable[[str], None]
OnDeath = Callable[[BaseException], None]

# What open_model calls its phases, in an operator's words; its last one only says that it is done.
_PHASES = MappingProxyType({"check": "checking model", "weights": "loading weights"})
# The part of a start that is behind when a phase begins, for a screen. A guide, not a measure:
# torch takes 3 s to import, weights from 0.2 s (the bundled model) to minutes.
DONE_BEFORE = MappingProxyType(
    {
        "importing torch": 0.0,
        "reading tokenizer": 0.4,
        "checking model": 0.45,
        "loading weights": 0.5,
        "allocating KV blocks": 0.9,
        "first token": 0.95,
    }
)
_TORCH_CAN = frozenset(Capability)
_LEDGER_CAN = frozenset({Capability.SAMPLING, Capability.GUIDES, Capability.GRAMMAR})
_LEDGER_CONTEXT = 8192
_LEDGER_TOKEN_BYTES = 8  # one fingerprint


@dataclass(frozen=True, slots=True)
class Opened:
    """A loaded, not yet started engine and the model it serves."""

    engine: Engine
    model: ServedModel
    kv: KvBudget
    checker: GrammarChecker | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """The process without its engine, which loads while these already answer."""

    app: ASGIApp
    lifecycle: Lifecycle
    metrics: Metrics


def build(settings: Settings) -> Parts:
    """Wire what answers from the first second on."""
    lifecycle, metrics = Lifecycle(), Metrics(__version__)
    return Parts(create_app(settings, lifecycle, metrics, monotonic), lifecycle, metrics)


def serving(settings: Settings, opened: Opened, metrics: Metrics) -> Serving:
    """Wire a started engine to the calls that will come."""
    info = opened.engine.info
    admission = Admission(
        max_sequences=info.max_running + settings.max_queued_requests,
        max_waiting_tokens=settings.max_queued_tokens,
    )
    metrics.watch(opened.engine.load)
    dispatcher = Dispatcher(opened.engine, admission, metrics, monotonic)
    models: Mapping[str, ServedModel] = MappingProxyType({opened.model.name: opened.model})
    embedder = PooledEmbedder(opened.engine)
    vectors = VectorDispatcher(embedder, dispatcher, window=info.max_running)
    return Serving(opened.engine, models, dispatcher, vectors, checker=opened.checker)


def model_path(settings: Settings) -> Path:
    """The directory to serve: the one asked for, or the bundled demo."""
    if settings.model_dir is not None:
        if not settings.model_dir.is_dir():
            raise ModelRejected(f"{settings.model_dir} is not a directory")
        return settings.model_dir
    from engines.bundled import penstock_tiny

    return penstock_tiny()


def open_engine(settings: Settings, report: Report, on_death: OnDeath) -> Opened:
    """Load the engine that the settings choose; blocks for seconds, so not on the event loop.

    `report` hears the name of each phase as it begins. Raises ModelRejected.
    """
    path = model_path(settings)
    opener = {"torch": _open_torch, "ledger": _open_ledger}[settings.engine]
    return opener(path, settings, report, on_death)


def _open_torch(path: Path, settings: Settings, report: Report, on_death: OnDeath) -> Opened:
    report("importing torch")
    # OpenMP reads this when torch loads it. Spinning threads starve the event loop and each other
    # wherever cores are shared: 593 ms per step became 15 (docs/adr/0006).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # noqa: TID251 - written, not read
    try:
        from engines.torch.encoders import is_encoder
        from engines.torch.loading import open_model
    except ImportError as error:
        raise ModelRejected(
            f"the torch engine is not installed ({error.name} is missing): install penstock[torch]"
        ) from error
    report("reading tokenizer")
    text = read_text_side(path)
    if is_encoder(path):
        return _open_encoder(path, text, settings, report, on_death)
    loaded = open_model(
        path, dtype=settings.dtype, device=settings.device, progress=_loading(report)
    )
    facts = loaded.facts
    kv = _torch_budget(settings, loaded)
    ends = frozenset(facts.eos_ids) or text.end_tokens
    grammars = _grammars(path, facts.vocab_size, ends) if facts.generates else None
    report("allocating KV blocks")
    runner = _decoder_runner(loaded, kv, settings, grammars)
    can = _can(_TORCH_CAN, grammars) if facts.generates else frozenset[Capability]()
    info = replace(
        _info(settings, path, kv, facts.vocab_size, can),
        generates=facts.generates,
        embeds=Embeds(facts.recipe.size(facts.hidden_size), facts.recipe.normalise),
    )
    limits = _limits(settings, info)
    engine = SteppedEngine(info, limits, runner, grammars=grammars, on_death=on_death)
    model = text.served_as(_names(settings, path), info, ends, _writing(settings, text))
    return Opened(engine, model, kv, _checker(path, info, grammars))


def _loading(report: Report) -> Callable[[str, float], None]:
    return lambda phase, _: report(_PHASES[phase]) if phase in _PHASES else None


def _decoder_runner(
    loaded: "LoadedModel", kv: KvBudget, settings: Settings, grammars: GrammarCompiler | None
) -> StepRunner:
    from engines.torch.pooling_runner import PoolingRunner
    from engines.torch.runner import TorchRunner
    from engines.torch.vector_runner import VectorRunner

    if not loaded.facts.generates:
        return VectorRunner(loaded, num_blocks=kv.blocks, block_size=settings.block_size)
    tokens = TorchRunner(
        loaded,
        num_blocks=kv.blocks,
        block_size=settings.block_size,
        max_lanes=settings.max_running,
        grammars=grammars,
    )
    return PoolingRunner(tokens, loaded)


def _open_encoder(
    path: Path, text: TextSide, settings: Settings, report: Report, on_death: OnDeath
) -> Opened:
    """An encoder keeps nothing between steps: its blocks, one per text, only count the texts."""
    from engines.torch.encoder_loading import open_encoder
    from engines.torch.encoder_runner import EncoderRunner

    loaded = open_encoder(
        path, dtype=settings.dtype, device=settings.device, progress=_loading(report)
    )
    facts = loaded.facts
    context = _context(settings, facts.max_context)
    block = context + 1  # never full, so never looked up again
    kv = KvBudget(settings.max_running, context, 0, KvNeed(0, block, settings.max_running, context))
    size = facts.recipe.size(facts.hidden_size)
    info = replace(
        _info(settings, path, kv, facts.vocab_size, frozenset()),
        block_size=block,
        generates=False,
        embeds=None if facts.ranks else Embeds(size, facts.recipe.normalise),
        ranks=facts.ranks,
    )
    limits = _limits(settings, info, whole_prompts=True)
    engine = SteppedEngine(info, limits, EncoderRunner(loaded), on_death=on_death)
    return Opened(engine, text.served_as(_names(settings, path), info, frozenset()), kv)


def _torch_budget(settings: Settings, loaded: "LoadedModel") -> KvBudget:
    import torch

    on_gpu = loaded.device.type == "cuda"
    free = torch.cuda.mem_get_info(loaded.device)[0] if on_gpu else free_memory_bytes()
    precision = str(loaded.dtype).removeprefix("torch.")
    token_bytes = loaded.facts.kv_bytes_per_token(precision)
    return _budget(settings, token_bytes, loaded.facts.max_context, free)


def _open_ledger(path: Path, settings: Settings, report: Report, on_death: OnDeath) -> Opened:
    from engines.ledger import VECTOR_SIZE, LedgerRunner

    report("reading tokenizer")
    text = read_text_side(path)
    kv = _budget(settings, _LEDGER_TOKEN_BYTES, _LEDGER_CONTEXT, free_memory_bytes())
    vocab_size = text.tokenizer.vocab_size
    specials = text.tokenizer.special_tokens
    # It says every token but those at the bottom that mean something to a tokenizer.
    first = next(token for token in range(vocab_size) if token not in specials)
    grammars = _grammars(path, vocab_size, text.end_tokens)
    runner = LedgerRunner(
        kv.blocks, settings.block_size, vocab_size=vocab_size, first=first, grammars=grammars
    )
    info = replace(
        _info(settings, path, kv, vocab_size, _can(_LEDGER_CAN, grammars)),
        embeds=Embeds(VECTOR_SIZE, normalised=True),
    )
    limits = _limits(settings, info)
    engine = SteppedEngine(info, limits, runner, grammars=grammars, on_death=on_death)
    model = text.served_as(_names(settings, path), info, frozenset(), _writing(settings, text))
    return Opened(engine, model, kv, _checker(path, info, grammars))


def _grammars(path: Path, vocab_size: int, ends: frozenset[int]) -> GrammarCompiler | None:
    """What compiles the grammars of a model; None where its tokens have no bytes or no end."""
    source = read_text(path / "tokenizer.json")
    try:
        return GrammarCompiler(read_vocabulary(source, vocab_size, ends))
    except ValueError as error:
        _log.warning("this model takes no grammars: %s", error)
        return None


def _checker(
    path: Path, info: EngineInfo, grammars: GrammarCompiler | None
) -> GrammarChecker | None:
    if grammars is None:
        return None
    return GrammarChecker(path / "tokenizer.json", info.vocab_size, grammars.ends)


def _writing(settings: Settings, text: TextSide) -> Writing:
    syntax = choose_syntax(
        text.template, tools=settings.tool_parser, reasoning=settings.reasoning_parser
    )
    return Writing(syntax, Ending(settings.named_call_finish))


def _can(all_of: frozenset[Capability], grammars: object) -> frozenset[Capability]:
    return all_of if grammars is not None else all_of - {Capability.GRAMMAR}


def _budget(settings: Settings, token_bytes: int, own_context: int, free: int) -> KvBudget:
    context = _context(settings, own_context)
    need = KvNeed(token_bytes, settings.block_size, settings.max_running, context)
    return plan_kv(need, asked_bytes=settings.kv_cache_memory, free_bytes=free)


def _context(settings: Settings, own_context: int) -> int:
    context = settings.max_context or own_context
    if context > own_context:
        raise ModelRejected(
            f"--max-context {context} is more than the model's own {own_context} tokens"
        )
    return context


def _names(settings: Settings, path: Path) -> tuple[str, ...]:
    if settings.served_model_name:
        return settings.served_model_name
    return (path.resolve().name if settings.model_dir else "penstock-tiny",)


def _info(
    settings: Settings, path: Path, kv: KvBudget, vocab_size: int, can: frozenset[Capability]
) -> EngineInfo:
    return EngineInfo(
        model=_names(settings, path)[0],
        max_context=kv.context,
        vocab_size=vocab_size,
        block_size=settings.block_size,
        num_blocks=kv.blocks,
        max_running=settings.max_running,
        capabilities=can,
    )


def _limits(settings: Settings, info: EngineInfo, *, whole_prompts: bool = False) -> Limits:
    rows = settings.max_step_tokens
    return Limits(
        max_context=info.max_context,
        max_running=info.max_running,
        tokens_per_step=max(rows, info.max_context) if whole_prompts else rows,
        block_size=info.block_size,
        num_blocks=info.num_blocks,
        vocab_size=info.vocab_size,
        whole_prompts=whole_prompts,
    )
