"""Opens the engine that the settings choose: the only place that names concrete engines.

Worker processes import it, and nothing of the gateway does. Engines are imported when they are
chosen: importing torch takes seconds, and the ledger needs none of it.
"""

# ruff: noqa: PLC0415 - as said above

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from engines.api import Capability, Embeds, Engine, EngineInfo
from engines.errors import ModelRejected
from engines.grammar.compiler import GrammarCompiler
from engines.grammar.vocabulary import read_vocabulary
from engines.limits import Limits
from engines.openvino.version import QUANTISED
from engines.step import MovesBlocks, StepRunner
from engines.stepped import Message, SteppedEngine
from engines.text.model_files import read_text
from engines.tiers.fingerprint import fingerprint
from engines.tiers.keeper import Keeper
from engines.tiers.opening import TierBudget, open_keeper
from gateway.free_memory import free_memory
from gateway.kv_budget import KvBudget, KvNeed, plan_kv
from gateway.loading_phases import in_words
from gateway.memory_plan import choose_context
from gateway.memory_room import machine_room
from gateway.model_directory import TextSide, read_text_side
from gateway.opened import (
    Computes,
    OnDeath,
    Opened,
    Report,
    Sizes,
    model_names,
    model_path,
    open_over,
)
from gateway.openvino_choice import (
    DoesNotFit,
    check_settings,
    gpu_computes,
    graph_folder,
    lowered_kv,
)
from gateway.settings import Settings
from gateway.torch_computing import load_torch, plan_torch, torch_runner

if TYPE_CHECKING:
    from engines.torch.families import ModelFacts

_log = logging.getLogger(__name__)

_MODELS_CAN = frozenset(Capability)
_LEDGER_CAN = frozenset({Capability.SAMPLING, Capability.GUIDES, Capability.GRAMMAR})
_LEDGER_CONTEXT = 8192
_LEDGER_TOKEN_BYTES = 8  # one fingerprint


@dataclass(frozen=True, slots=True)
class Loaded:
    """An engine that is loaded and not yet started, and the text side beside it."""

    engine: Engine
    text: TextSide
    sizes: Callable[[], Sizes]  # engines that batch by themselves know theirs once they have begun

    @property
    def computes(self) -> Computes:
        """The engine with what calls to it must know."""
        sizes = self.sizes()
        return Computes(self.engine, sizes.kv, sizes.ends, grammars=sizes.grammars)


def open_engine(settings: Settings, report: Report, on_death: OnDeath) -> Opened:
    """The engine in this process, with its model over it. Blocks as `load_engine` does."""
    loaded = load_engine(settings, report, on_death)
    return open_over(settings, loaded.text, loaded.computes)


def load_engine(settings: Settings, report: Report, on_death: OnDeath) -> Loaded:
    """Load the engine that the settings choose; blocks for seconds, so not on the event loop.

    `report` hears the name of each phase as it begins. Raises ModelRejected.
    """
    path = model_path(settings)
    if settings.engine in _OPENERS:
        report("reading tokenizer")
        opener = _OPENERS[settings.engine]
        return opener(path, read_text_side(path), settings, report, on_death)
    if settings.kv_host_memory or settings.kv_disk_dir is not None:
        raise ModelRejected(
            f"--kv-host-memory and --kv-disk-dir are for blocks of our own; --engine"
            f" {settings.engine} keeps its own: configure its tiers in --engine-config"
        )
    from gateway.self_batching import OPENERS

    report("reading tokenizer")
    text = read_text_side(path)
    configured = OPENERS[settings.engine](path, text, settings, on_death)
    return Loaded(configured.engine, text, configured.sizes)


def _open_auto(
    path: Path, text: TextSide, settings: Settings, report: Report, on_death: OnDeath
) -> Loaded:
    """By openvino where it can, else by torch; the log tells which, and why."""
    why = "a GPU computes"
    if not gpu_computes(settings):
        try:
            return _open_openvino(path, text, settings, report, on_death)
        except DoesNotFit:  # nor would it torch
            raise
        except ModelRejected as error:
            why = str(error)
    if settings.dtype in QUANTISED:
        raise ModelRejected(f"--dtype {settings.dtype} is openvino's alone, which cannot: {why}")
    _log.info("torch computes: %s", why)
    return _open_torch(path, text, settings, report, on_death)


def _open_torch(
    path: Path, text: TextSide, settings: Settings, report: Report, on_death: OnDeath
) -> Loaded:
    before = machine_room(settings.memory)  # what the plan counts is not yet taken
    report("importing torch")
    # OpenMP reads this when torch loads it. Spinning threads starve the event loop and each other
    # wherever cores are shared: 593 ms per step became 15 (docs/adr/0006).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # noqa: TID251 - written, not read
    try:
        from engines.torch.identity import kv_fingerprint
    except ImportError as error:
        raise ModelRejected(
            f"the torch engine is not installed ({error.name} is missing): install penstock[torch]"
        ) from error
    plan = plan_torch(path, settings, before)
    if plan.kv is None:
        return _open_encoder(path, text, settings, report, on_death)
    model = load_torch(path, settings, plan.kv, report)
    decoder = _Decoder(
        model.loaded.facts,
        plan.kv,
        lambda kv, grammars: torch_runner(model, kv, settings, grammars, report),
        lambda: kv_fingerprint(path, model.loaded, settings.block_size),
    )
    return _open_decoder(path, text, settings, report, decoder, on_death)


def _open_openvino(
    path: Path, text: TextSide, settings: Settings, report: Report, on_death: OnDeath
) -> Loaded:
    report("importing openvino")
    check_settings(settings, path)
    room = machine_room(settings.memory)
    try:
        from engines.openvino.identity import kv_fingerprint
        from engines.openvino.loading import Lowering, computes_in, open_model
        from engines.openvino.runner import OpenvinoRunner
    except ImportError as error:
        raise ModelRejected(
            f"the openvino engine needs {error.name}: penstock[openvino]"
        ) from error
    kv = lowered_kv(path, settings, computes_in(settings.dtype), room)
    loaded = open_model(
        path,
        dtype=settings.dtype,
        cache=graph_folder(settings),
        threads=settings.threads,
        lowering=Lowering(free_memory().bytes, apart=True),
        progress=in_words(report),
    )
    _log.info("openvino computes, in %s", loaded.dtype)

    def runner(kv: KvBudget, grammars: GrammarCompiler | None) -> StepRunner:
        return OpenvinoRunner(
            loaded, num_blocks=kv.blocks, max_lanes=settings.max_running, grammars=grammars
        )

    decoder = _Decoder(loaded.facts, kv, runner, lambda: kv_fingerprint(loaded))
    return _open_decoder(path, text, settings, report, decoder, on_death)


@dataclass(frozen=True, slots=True)
class _Decoder:
    """A loaded model that steps, and how its runner is made and its KV contents are known."""

    facts: "ModelFacts"
    kv: KvBudget
    runner: Callable[[KvBudget, GrammarCompiler | None], StepRunner]
    fingerprint: Callable[[], bytes]


def _open_decoder(
    path: Path,
    text: TextSide,
    settings: Settings,
    report: Report,
    decoder: _Decoder,
    on_death: OnDeath,
) -> Loaded:
    facts, kv = decoder.facts, decoder.kv
    ends = frozenset(facts.eos_ids) or text.end_tokens
    grammars = _grammars(path, facts.vocab_size, ends) if facts.generates else None
    report("allocating KV blocks")
    runner = decoder.runner(kv, grammars)
    can = _can(_MODELS_CAN, grammars) if facts.generates else frozenset[Capability]()
    info = replace(
        _info(settings, kv, facts.vocab_size, can),
        generates=facts.generates,
        embeds=Embeds(facts.recipe.size(facts.hidden_size), facts.recipe.normalise),
    )
    limits = _limits(settings, info)
    keeper = _keeper(settings, runner, decoder.fingerprint)
    engine = SteppedEngine(
        info, limits, runner, grammars=grammars, keeper=keeper, on_death=on_death
    )
    sizes = Sizes(kv, limits, ends, grammars is not None)
    return Loaded(engine, text, lambda: sizes)


def _open_encoder(
    path: Path, text: TextSide, settings: Settings, report: Report, on_death: OnDeath
) -> Loaded:
    """An encoder keeps nothing between steps: its blocks, one per text, only count the texts."""
    from engines.torch.encoder_loading import open_encoder
    from engines.torch.encoder_runner import EncoderRunner

    loaded = open_encoder(
        path,
        dtype=settings.dtype,
        device=settings.device,
        threads=settings.threads,
        progress=in_words(report),
    )
    facts = loaded.facts
    context = choose_context(settings.max_context, facts.max_context)
    block = context + 1  # never full, so never looked up again
    kv = KvBudget(settings.max_running, context, 0, KvNeed(0, block, settings.max_running, context))
    size = facts.recipe.size(facts.hidden_size)
    info = replace(
        _info(settings, kv, facts.vocab_size, frozenset()),
        block_size=block,
        generates=False,
        embeds=None if facts.ranks else Embeds(size, facts.recipe.normalise),
        ranks=facts.ranks,
    )
    limits = _limits(settings, info, whole_prompts=True)
    runner = EncoderRunner(loaded)
    keeper = _keeper(settings, runner, bytes)  # none, but it says so
    engine = SteppedEngine(info, limits, runner, keeper=keeper, on_death=on_death)
    return Loaded(engine, text, lambda: Sizes(kv, limits))


def _open_ledger(
    path: Path, text: TextSide, settings: Settings, _: Report, on_death: OnDeath
) -> Loaded:
    from engines.ledger import VECTOR_SIZE, LedgerRunner

    kv = _ledger_budget(settings)
    vocab_size = text.tokenizer.vocab_size
    specials = text.tokenizer.special_tokens
    # It says every token but those at the bottom that mean something to a tokenizer.
    first = next(token for token in range(vocab_size) if token not in specials)
    grammars = _grammars(path, vocab_size, text.end_tokens)
    runner = LedgerRunner(
        kv.blocks, settings.block_size, vocab_size=vocab_size, first=first, grammars=grammars
    )
    info = replace(
        _info(settings, kv, vocab_size, _can(_LEDGER_CAN, grammars)),
        embeds=Embeds(VECTOR_SIZE, normalised=True),
    )
    limits = _limits(settings, info)
    keeper = _keeper(settings, runner, lambda: fingerprint("ledger", str(settings.block_size)))
    engine = SteppedEngine(
        info, limits, runner, grammars=grammars, keeper=keeper, on_death=on_death
    )
    sizes = Sizes(kv, limits, grammars=grammars is not None)
    return Loaded(engine, text, lambda: sizes)


_OPENERS = MappingProxyType(
    {"auto": _open_auto, "torch": _open_torch, "openvino": _open_openvino, "ledger": _open_ledger}
)


def _keeper(
    settings: Settings, runner: StepRunner, of: Callable[[], bytes]
) -> Keeper[Message] | None:
    """What keeps what the cache evicts, if that is asked for; blocks while weights are digested."""
    budget = TierBudget(settings.kv_host_memory, settings.kv_disk_dir, settings.kv_disk_bytes)
    if isinstance(runner, MovesBlocks):
        return open_keeper(budget, runner.block_bytes, of)
    if budget.host_bytes:
        _log.warning("--kv-host-memory does nothing for a model that does not generate")
    return None


def _grammars(path: Path, vocab_size: int, ends: frozenset[int]) -> GrammarCompiler | None:
    """What compiles the grammars of a model; None where its tokens have no bytes or no end."""
    source = read_text(path / "tokenizer.json")
    try:
        return GrammarCompiler(read_vocabulary(source, vocab_size, ends))
    except ValueError as error:
        _log.warning("this model takes no grammars: %s", error)
        return None


def _can(all_of: frozenset[Capability], grammars: object) -> frozenset[Capability]:
    return all_of if grammars is not None else all_of - {Capability.GRAMMAR}


def _ledger_budget(settings: Settings) -> KvBudget:
    context = choose_context(settings.max_context, _LEDGER_CONTEXT)
    need = KvNeed(_LEDGER_TOKEN_BYTES, settings.block_size, settings.max_running, context)
    room = machine_room(settings.memory)
    return plan_kv(need, asked_bytes=settings.kv_cache_memory, room_bytes=room.usable_bytes)


def _info(
    settings: Settings, kv: KvBudget, vocab_size: int, can: frozenset[Capability]
) -> EngineInfo:
    return EngineInfo(
        model=model_names(settings)[0],
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
        draft_tokens=settings.speculate if info.generates else 0,
        step_target_s=0.0 if whole_prompts else settings.step_target_s,
    )
