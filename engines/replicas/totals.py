"""The loads of several engines as one: what is there is summed, what was done never goes back."""

from dataclasses import fields, replace

from engines.api import EngineLoad, TierLoad

_TOTALS = (
    "steps", "preemptions", "prefix_hit_tokens", "prefix_query_tokens",
    "drafted_tokens", "accepted_tokens",
)  # fmt: skip
_LEVELS = ("running", "waiting", "waiting_tokens", "blocks_used", "blocks_total")
_TIER_LEVELS = ("blocks", "bytes")
_TIER_TOTALS = tuple(
    field.name for field in fields(TierLoad) if field.name not in ("tier", *_TIER_LEVELS)
)


def added(total: EngineLoad, load: EngineLoad, *, gone: bool = False) -> EngineLoad:
    """`total` with one more; of an engine that is gone only what it has done counts."""
    names = _TOTALS if gone else (*_TOTALS, *_LEVELS)
    sums = {name: getattr(total, name) + getattr(load, name) for name in names}
    return replace(total, tiers=_added_tiers(total.tiers, load.tiers, gone=gone), **sums)


def _added_tiers(
    total: tuple[TierLoad, ...], more: tuple[TierLoad, ...], *, gone: bool
) -> tuple[TierLoad, ...]:
    names = _TIER_TOTALS if gone else (*_TIER_TOTALS, *_TIER_LEVELS)
    found = {each.tier: each for each in total}
    for one in more:
        known = found.get(one.tier, TierLoad(one.tier, 0, 0))
        sums = {name: getattr(known, name) + getattr(one, name) for name in names}
        found[one.tier] = replace(known, **sums)
    return tuple(found[tier] for tier in sorted(found))
