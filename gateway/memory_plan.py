"""What serving a model takes of the memory there is: one arithmetic for `plan` and for `serve`.

Pure: sizes come from engines/torch/footprint.py, what is free from who calls. What is taken, in
order:

    weights   as they will be held
    process   code and libraries, before any weights (PROCESS_BYTES); on a GPU not counted
    steps     what one step takes beside the cache, at most
    KV cache  whole blocks, and one more that padding is written to
    host      --kv-host-memory
    headroom  left alone

Of a model in several processes, each with its GPU, it is what one of them takes; without GPUs, what
all of them do.
"""

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from engines.errors import ModelRejected
from engines.openvino.held import held_bytes
from engines.openvino.version import QUANTISED
from engines.torch.families import ITEM_BYTES
from gateway.kv_budget import KvBudget, KvNeed, plan_kv

if TYPE_CHECKING:
    from engines.torch.footprint import Footprint

_MIB = 1 << 20
_GIB = 1 << 30

# Measured, penstock-tiny served in bfloat16: a gateway of 102 MiB and a worker of 495, weights and
# blocks included. 405 MiB of both have no file behind them; pages of files are given up if asked.
PROCESS_BYTES = 512 * _MIB

# Of a row of logits, whatever its number: the model's own, float32, edited, weighed, and the sort
# of 64-bit keys in engines/torch/sampler.py. Measured: 61 for each of 64 x 128,256, all of them
# drawn by top_p, with penalties and log-probabilities.
LOGIT_BYTES = 64

# Widths of its widest layer that a row takes at once: inputs, gate, product, outputs.
_ROW_WIDTHS = 6

# Keys that attention gathers at once: that of engines/torch/batch.py, as a test shows.
GATHERED_KEYS = 65_536


@dataclass(frozen=True, slots=True)
class Room:
    """The memory there is for a model."""

    free_bytes: int
    source: str  # what bounds it, in words
    spared: int = 0  # one part in so many is left alone; 0: none

    @property
    def headroom_bytes(self) -> int:
        return self.free_bytes // self.spared if self.spared else 0

    @property
    def usable_bytes(self) -> int:
        return self.free_bytes - self.headroom_bytes


@dataclass(frozen=True, slots=True)
class Demand:
    """How it is to be served."""

    dtype: str  # of what is computed, keys and values; and of the weights where not `quantised`
    on_gpu: bool
    packs: bool  # whether linear layers are packed: a copy of what is shared
    max_running: int
    max_context: int  # 0: the model's own
    block_size: int
    step_tokens: int
    kv_asked_bytes: int  # 0: what fits
    host_bytes: int = 0  # for blocks that the cache has no room for, beside it
    ranks: int = 1  # processes that share the model
    quantised: str | None = None  # what openvino holds the weights in: int8 or int4

    @property
    def held_in(self) -> str:
        """The data type of the weights, as --dtype names it."""
        return self.quantised or self.dtype

    @property
    def here(self) -> int:
        """How many of them share the memory that is planned: a GPU has one."""
        return 1 if self.on_gpu else self.ranks

    @property
    def item_bytes(self) -> int:
        return ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What is taken, by kind. An encoder has no `kv`."""

    room: Room
    demand: Demand
    weight_bytes: int
    process_bytes: int
    step_bytes: int
    host_bytes: int  # on a GPU they are not of its memory
    kv: KvBudget | None

    @property
    def kv_bytes(self) -> int:
        """Of all blocks, that of padding included."""
        return 0 if self.kv is None else (self.kv.blocks + 1) * self.kv.block_bytes

    @property
    def total_bytes(self) -> int:
        return (
            self.weight_bytes
            + self.process_bytes
            + self.step_bytes
            + self.host_bytes
            + self.kv_bytes
        )

    def sequences(self, tokens: int) -> int:
        """How many sequences of so many tokens the blocks hold at once."""
        return 0 if self.kv is None else self.kv.blocks // ceil(tokens / self.demand.block_size)


def plan_memory(footprint: "Footprint", demand: Demand, room: Room) -> MemoryPlan:
    """The decision. Raises ModelRejected with what is needed, what there is, and what to change."""
    weights = _weight_bytes(footprint, demand, demand.held_in)
    process = 0 if demand.on_gpu else demand.here * PROCESS_BYTES
    has_cache = footprint.kv_width > 0
    context = choose_context(demand.max_context, footprint.max_context) if has_cache else 0
    steps = demand.here * _step_bytes(footprint, demand, context)
    host = 0 if demand.on_gpu or not footprint.generates else demand.host_bytes
    fixed = weights + process + steps + host
    usable = room.free_bytes if demand.kv_asked_bytes else room.usable_bytes
    token_bytes = footprint.kv_bytes_per_token(demand.item_bytes) * demand.here // demand.ranks
    block = token_bytes * demand.block_size
    if fixed + 2 * block > usable:
        raise ModelRejected(_too_large(footprint, demand, room, (weights, fixed - weights, block)))
    if not has_cache:
        return MemoryPlan(room, demand, weights, process, steps, host, None)
    need = KvNeed(token_bytes, demand.block_size, demand.max_running, context)
    left = usable - fixed - block
    kv = plan_kv(need, asked_bytes=demand.kv_asked_bytes, room_bytes=left)
    if kv.blocks * block > left:
        raise ModelRejected(
            f"--kv-cache-memory: {told(kv.blocks * block)} of KV blocks, {told(weights)} of weights"
            f" and {told(fixed - weights + block)} for the process and its steps are"
            f" {told(fixed + (kv.blocks + 1) * block)}, but there are {told(room.free_bytes)}"
            f" ({room.source}); lower --kv-cache-memory to {left // _MIB}MiB or less"
        )
    return MemoryPlan(room, demand, weights, process, steps, host, kv)


def choose_context(asked: int, own: int) -> int:
    """The longest sequence. Raises ModelRejected for one that the model cannot have."""
    context = asked or own
    if context > own:
        raise ModelRejected(f"--max-context {context} is more than the model's own {own} tokens")
    return context


def told(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / _GIB:.2f} GiB" if count >= _GIB else f"{count / _MIB:.1f} MiB"


def _weight_bytes(footprint: "Footprint", demand: Demand, dtype: str) -> int:
    if dtype in QUANTISED:
        return held_bytes(footprint, dtype)
    each = footprint.weight_bytes(ITEM_BYTES[dtype], packs=demand.packs, ranks=demand.ranks)
    return demand.here * each


def _step_bytes(footprint: "Footprint", demand: Demand, context: int) -> int:
    """What a step takes beside the cache: activations, keys of one layer gathered, logits."""
    item = demand.item_bytes
    rows = demand.step_tokens * footprint.widest * item * _ROW_WIDTHS
    if not footprint.kv_width:
        return rows
    padded = 1 << (max(context, demand.block_size) - 1).bit_length()
    keys = min(max(GATHERED_KEYS, padded), demand.max_running * padded)
    gathered = keys * footprint.kv_width // footprint.layers // demand.ranks * item
    logits = demand.max_running * footprint.vocab_size * LOGIT_BYTES if footprint.generates else 0
    return rows + gathered + logits


def _too_large(
    footprint: "Footprint", demand: Demand, room: Room, parts: tuple[int, int, int]
) -> str:
    weights, rest, block = parts
    usable = room.free_bytes if demand.kv_asked_bytes else room.usable_bytes
    spared = room.free_bytes - usable
    less = f", less {told(spared)} that are left alone" if spared else ""
    hints = []
    if demand.held_in == "float32":
        smaller = _weight_bytes(footprint, demand, "bfloat16")
        hints.append(f"--dtype bfloat16 ({told(smaller)} of weights)")
    if footprint.kv_width:
        hints.append("a lower --max-running or --max-context")
    if demand.on_gpu and demand.ranks == 1:
        hints.append("--tensor-parallel, where there are more GPUs")
    hints.append("more memory (--memory, or the container's limit)")
    return (
        f"the model does not fit: it needs {told(weights + rest + 2 * block)}, of it"
        f" {told(weights)} for weights in {demand.held_in} and {told(rest)} for the process and its"
        f" steps, but has {told(usable)} ({room.source}{less}); what helps: {', '.join(hints)}"
    )
