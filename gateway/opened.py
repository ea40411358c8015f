"""An engine and the model that is served over it: the text side is ours, wherever the engine is."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from engines.api import Engine
from engines.bundled import penstock_tiny
from engines.errors import ModelRejected
from engines.grammar.checker import GrammarChecker
from engines.limits import Limits
from engines.replicas.policies import Placements
from gateway.kv_budget import KvBudget
from gateway.model_directory import TextSide, Writing
from gateway.model_syntax import choose_syntax
from gateway.settings import Settings
from openai_compat.choice import Ending
from openai_compat.served import ServedModel

Report = Callable[[str], None]
OnDeath = Callable[[BaseException], None]


@dataclass(frozen=True, slots=True)
class Computes:
    """An engine, and what calls to it must know beside its info."""

    engine: Engine
    kv: KvBudget
    ends: frozenset[int] = frozenset()  # the tokens that end an answer
    grammars: bool = False


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a worker tells of its engine beside its info."""

    kv: KvBudget
    limits: Limits
    ends: frozenset[int] = frozenset()
    grammars: bool = False


class Workers(Protocol):
    """What an engine in several processes tells an operator."""

    @property
    def up(self) -> int:
        """Replicas that there are now."""

    @property
    def total(self) -> int:
        """Replicas that there should be."""

    @property
    def outlive(self) -> bool:
        """Whether they live on when this process ends."""

    @property
    def migrations(self) -> int:
        """Streams that went on in another replica."""

    @property
    def restarts(self) -> int:
        """Replicas that were opened again."""

    @property
    def placements(self) -> Placements:
        """How requests were placed by what is known of caches."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An engine and the model it serves."""

    engine: Engine
    model: ServedModel
    kv: KvBudget
    checker: GrammarChecker | None = None
    workers: Workers | None = None  # None: this process computes


def model_path(settings: Settings) -> Path:
    """The directory to serve: the one asked for, or the bundled demo. Raises ModelRejected."""
    if settings.model_dir is not None:
        if not settings.model_dir.is_dir():
            raise ModelRejected(f"{settings.model_dir} is not a directory")
        return settings.model_dir
    return penstock_tiny()


def model_names(settings: Settings) -> tuple[str, ...]:
    """What clients may call the model; the first is its name."""
    if settings.served_model_name:
        return settings.served_model_name
    return (settings.model_dir.resolve().name if settings.model_dir else "penstock-tiny",)


def open_over(settings: Settings, text: TextSide, computes: Computes) -> Opened:
    """The model over an engine.

    Raises ModelRejected where no syntax fits its template, or an adapter has its name.
    """
    info = computes.engine.info
    taken = sorted({*info.adapters} & {*model_names(settings)})
    if taken:
        raise ModelRejected(
            f"the adapter {taken[0]!r} has the name of its model (--served-model-name)"
        )
    writing = _writing(settings, text) if info.generates else None
    model = text.served_as(model_names(settings), info, computes.ends, writing)
    model = replace(model, takes_extras=settings.engine_extras)
    return Opened(computes.engine, model, computes.kv, _checker(settings, text, computes))


def _writing(settings: Settings, text: TextSide) -> Writing:
    syntax = choose_syntax(
        text.template, tools=settings.tool_parser, reasoning=settings.reasoning_parser
    )
    return Writing(syntax, Ending(settings.named_call_finish))


def _checker(settings: Settings, text: TextSide, computes: Computes) -> GrammarChecker | None:
    if not computes.grammars:
        return None
    ends = computes.ends or text.end_tokens
    vocab_size = computes.engine.info.vocab_size
    return GrammarChecker(model_path(settings) / "tokenizer.json", vocab_size, ends)
