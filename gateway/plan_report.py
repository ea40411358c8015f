"""A memory plan as lines for a person, and as an object for a program."""

from typing import TYPE_CHECKING

from gateway.memory_plan import told

if TYPE_CHECKING:
    from gateway.memory_plan import Demand
    from gateway.plan_command import Planned

_LENGTHS = (1024, 4096, 16_384)


def as_object(planned: "Planned") -> dict[str, object]:
    """All of it in bytes, tokens and sequences."""
    plan, demand = planned.plan, planned.plan.demand
    kv = plan.kv
    return {
        "model": planned.name,
        "device": planned.device,
        "dtype": demand.held_in,
        "replicas": planned.replicas,
        "tensor_parallel": demand.ranks,
        "memory": {
            "free_bytes": plan.room.free_bytes,
            "source": plan.room.source,
            "headroom_bytes": plan.room.headroom_bytes,
        },
        "weight_bytes": plan.weight_bytes,
        "process_bytes": plan.process_bytes,
        "step_bytes": plan.step_bytes,
        "kv_host_bytes": plan.host_bytes,
        "kv_bytes": plan.kv_bytes,
        "total_bytes": plan.total_bytes,
        "max_running": demand.max_running,
        "kv": None
        if kv is None
        else {
            "token_bytes": kv.need.token_bytes,
            "block_size": kv.need.block_size,
            "block_bytes": kv.block_bytes,
            "blocks": kv.blocks,
            "max_context": kv.context,
            "own_context": planned.own_context,
        },
        "sequences": {str(length): plan.sequences(length) for length in _lengths(planned)},
    }


def as_lines(planned: "Planned") -> list[str]:
    """A table: what is taken, by kind, and what fits."""
    plan, demand = planned.plan, planned.plan.demand
    each = " for each worker" if planned.replicas > 1 else ""
    rows = [
        ("there are", plan.room.free_bytes, f"{plan.room.source}{each}"),
        ("left alone", plan.room.headroom_bytes, "for others"),
        ("weights", plan.weight_bytes, f"as they will be held, in {demand.held_in}"),
        ("process", plan.process_bytes, "torch and libraries, and a gateway beside: measured"),
        ("steps", plan.step_bytes, f"{demand.step_tokens} rows, {demand.max_running} of logits"),
        ("KV on host", plan.host_bytes, "--kv-host-memory"),
        ("KV cache", plan.kv_bytes, f"{plan.kv}" if plan.kv else "none: keeps nothing"),
        ("taken", plan.total_bytes, ""),
    ]
    lines = [f"{planned.name} on {planned.device}, {demand.held_in}{_divided(demand)}", ""]
    lines += [
        f"{name:<11} {told(size):>11}  {note}".rstrip()
        for name, size, note in rows
        if size or name not in ("process", "KV on host", "left alone")
    ]
    return [*lines, *_of_kv(planned)]


def _divided(demand: "Demand") -> str:
    if demand.ranks == 1:
        return ""
    what = "each on its GPU: what one takes" if demand.on_gpu else "and what all take"
    return f", in {demand.ranks} parts, {what}"


def _of_kv(planned: "Planned") -> list[str]:
    plan, kv = planned.plan, planned.plan.kv
    if kv is None:
        return []
    most = plan.demand.max_running
    served = f"--device {planned.device} --dtype {plan.demand.held_in} --max-context {kv.context}"
    return [
        "",
        f"one token   {kv.need.token_bytes} bytes of keys and values",
        f"one block   {kv.block_bytes} bytes, {kv.need.block_size} tokens",
        f"context     {kv.context} tokens, of the model's own {planned.own_context}",
        "",
        "tokens each   sequences held   computed at once",
        *(
            f"{length:>11}   {plan.sequences(length):>14}   {min(plan.sequences(length), most):>16}"
            for length in _lengths(planned)
        ),
        "",
        f"penstock serve would take {served}, and {kv.blocks} blocks",
    ]


def _lengths(planned: "Planned") -> list[int]:
    """Usual lengths below the longest, and the longest."""
    kv = planned.plan.kv
    if kv is None:
        return []
    return [*(length for length in _LENGTHS if length < kv.context), kv.context]
