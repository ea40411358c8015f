"""What a model takes of the memory there is, by value; what is free, by the files that say so."""

from dataclasses import replace

import pytest
import torch

from engines.errors import ModelRejected
from engines.torch.batch import GATHERED_KEYS
from engines.torch.footprint import Footprint, Stored
from gateway import memory_plan, plan_command, torch_computing
from gateway.free_memory import free_memory
from gateway.memory_plan import PROCESS_BYTES, Demand, Room, plan_memory
from gateway.memory_room import gpu_room, machine_room, with_share
from gateway.settings import Settings

MIB, GIB = 1 << 20, 1 << 30
# Llama-3.1-8B, by its published sizes: 32 layers of 8 KV heads of 128 numbers.
LLAMA = Footprint(
    weights=8_030_261_248,
    shared=0,
    head_bytes=0,
    kv_width=2 * 32 * 8 * 128,
    layers=32,
    generates=True,
    vocab_size=128_256,
    dtype="bfloat16",
    widest=14_336,
    max_context=131_072,
)
DEMAND = Demand(
    dtype="bfloat16", on_gpu=False, packs=True, max_running=64, max_context=0, block_size=32,
    step_tokens=512, kv_asked_bytes=0,
)  # fmt: skip


def test_a_plan_adds_up():
    """131,072 bytes of a token in bfloat16, and the rest of the room in blocks."""
    plan = plan_memory(LLAMA, DEMAND, Room(40 * GIB, "test", spared=5))
    assert plan.weight_bytes == 16_060_522_496
    assert (plan.kv.need.token_bytes, plan.kv.block_bytes) == (131_072, 4 * MIB)
    gathered = 131_072 * 2048 * 2  # one sequence of full length: keys and values of one layer
    logits = 64 * 128_256 * 64
    assert plan.step_bytes == 512 * 14_336 * 2 * 6 + gathered + logits
    assert plan.total_bytes == sum(
        (plan.weight_bytes, PROCESS_BYTES, plan.step_bytes, (plan.kv.blocks + 1) * 4 * MIB)
    )
    assert 0 <= 32 * GIB - plan.total_bytes < 4 * MIB
    assert plan.sequences(1024) == plan.kv.blocks // 32
    assert plan.sequences(1025) == plan.kv.blocks // 33


def test_float32_doubles_weights_and_keys():
    """And a shared embedding that is packed is there twice."""
    plan = plan_memory(LLAMA, replace(DEMAND, dtype="float32"), Room(100 * GIB, "test"))
    assert plan.weight_bytes == 2 * 16_060_522_496
    assert plan.kv.need.token_bytes == 262_144
    tied = replace(LLAMA, shared=1000, head_bytes=7)
    assert tied.weight_bytes(4, packs=True) - tied.weight_bytes(4, packs=False) == 4000


LAYER = (
    Stored("model.embed_tokens.weight", (1000, 128)),
    Stored("model.layers.0.mlp.up_proj.weight", (512, 128)),
    Stored("model.layers.0.mlp.gate.weight", (64, 128)),  # a router: few outputs
    Stored("model.layers.0.mlp.experts.0.up_proj.weight", (512, 128)),
    Stored("model.layers.0.norm.weight", (5000,)),
    Stored("model.layers.0.odd.weight", (512, 100)),
    Stored("lm_head.weight", (1000, 128)),
)
REST = 2 * 1000 * 128 + 2 * 512 * 128 + 4 * 5000  # looked up, and small
HEAD = 1000 * (128 + 4)


def test_quantised_weights_are_counted_by_their_bits_and_scales():
    """Keys and values are not: they are in what is computed."""
    model = replace(LLAMA, stored=LAYER, vocab_size=1000)
    room = Room(40 * GIB, "test")
    eight, four = (
        plan_memory(model, replace(DEMAND, packs=False, quantised=dtype), room)
        for dtype in ("int8", "int4")
    )
    rows = 64 * (128 + 4) + 512 * (100 + 4) + HEAD
    assert eight.weight_bytes == REST + rows + 512 * (128 + 4)
    assert four.weight_bytes == REST + rows + 512 * (64 + 2 * 4)
    assert {plan.kv.need.token_bytes for plan in (eight, four)} == {131_072}
    tied = replace(model, stored=LAYER[:-1], shared=1000 * 128)
    assert plan_memory(tied, four.demand, room).weight_bytes == four.weight_bytes


def test_a_refusal_names_what_weights_are_held_in():
    """And offers no data type that takes more."""
    model = replace(LLAMA, stored=(Stored("model.layers.0.up_proj.weight", (1 << 17, 1 << 17)),))
    for dtype, size in (("int8", "16.00 GiB"), ("int4", "9.00 GiB")):
        with pytest.raises(ModelRejected) as refusal:
            plan_memory(model, replace(DEMAND, quantised=dtype), Room(4 * GIB, "the limit"))
        assert f"{size} for weights in {dtype}" in str(refusal.value)
        assert "--dtype" not in str(refusal.value)


def test_a_gpu_is_not_charged_for_the_process_or_blocks_on_the_host():
    """They are in the machine's memory."""
    room = gpu_room(0, 24 * GIB)
    here = plan_memory(LLAMA, replace(DEMAND, host_bytes=GIB), Room(40 * GIB, "test"))
    there = plan_memory(LLAMA, replace(DEMAND, on_gpu=True, packs=False, host_bytes=GIB), room)
    assert (here.process_bytes, here.host_bytes) == (PROCESS_BYTES, GIB)
    assert (there.process_bytes, there.host_bytes) == (0, 0)
    assert room.headroom_bytes == 24 * GIB // 10


def test_a_model_in_parts_takes_a_part_of_each_gpu_and_all_of_them_of_a_machine():
    """What is divided of the weights, and of each block its KV heads; the rest is everywhere."""
    divided = 4 * 1_700_000_000
    model = replace(LLAMA, divided=divided)
    demand = replace(DEMAND, on_gpu=True, packs=False)
    one = plan_memory(model, demand, Room(40 * GIB, "test"))
    each = plan_memory(model, replace(demand, ranks=4), Room(40 * GIB, "test"))
    assert each.weight_bytes == 2 * (LLAMA.weights - divided + divided // 4)
    assert each.kv.need.token_bytes == one.kv.need.token_bytes // 4
    assert one.step_bytes - each.step_bytes == 131_072 * 2048 * 2 * 3 // 4  # of gathered keys
    here = replace(DEMAND, ranks=4, packs=False)
    all_of_them = plan_memory(model, here, Room(80 * GIB, "test"))
    assert all_of_them.weight_bytes == 4 * each.weight_bytes
    assert all_of_them.process_bytes == 4 * PROCESS_BYTES
    assert all_of_them.step_bytes == 4 * each.step_bytes
    assert all_of_them.kv.need.token_bytes == one.kv.need.token_bytes


def test_weights_that_do_not_fit_are_refused_with_numbers_and_what_helps():
    """Needs, has, the limit's name, and the flags; a smaller precision by its size."""
    with pytest.raises(ModelRejected) as refusal:
        plan_memory(LLAMA, replace(DEMAND, dtype="float32"), Room(16 * GIB, "the limit", spared=5))
    told = str(refusal.value)
    assert "29.92 GiB for weights in float32" in told
    assert "has 12.80 GiB (the limit, less 3.20 GiB that are left alone)" in told
    assert "--dtype bfloat16 (14.96 GiB of weights)" in told
    assert "--memory" in told
    with pytest.raises(ModelRejected) as smaller:
        plan_memory(LLAMA, DEMAND, Room(8 * GIB, "the limit"))
    assert "--dtype" not in str(smaller.value)


def test_a_kv_cache_that_does_not_fit_is_refused_with_what_would():
    """The size it names is taken, and one more MiB is not."""
    room = Room(20 * GIB, "the limit")
    with pytest.raises(ModelRejected) as refusal:
        plan_memory(LLAMA, replace(DEMAND, kv_asked_bytes=10 * GIB), room)
    told = str(refusal.value)
    assert "10.00 GiB of KV blocks, 14.96 GiB of weights" in told
    assert "there are 20.00 GiB (the limit)" in told
    most = int(told.rpartition("to ")[2].partition("MiB")[0])
    fits = plan_memory(LLAMA, replace(DEMAND, kv_asked_bytes=most * MIB), room)
    assert fits.total_bytes <= 20 * GIB
    with pytest.raises(ModelRejected):
        plan_memory(LLAMA, replace(DEMAND, kv_asked_bytes=(most + 5) * MIB), room)


def test_a_context_beyond_the_models_own_is_refused():
    """As the server refuses it."""
    with pytest.raises(ModelRejected, match="--max-context 200000 is more than"):
        plan_memory(LLAMA, replace(DEMAND, max_context=200_000), Room(40 * GIB, "test"))


def test_attention_gathers_as_much_as_is_planned():
    """The runner's own figure."""
    assert memory_plan.GATHERED_KEYS == GATHERED_KEYS


def lay(root, files):
    """Files of a machine below a folder."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(str(text))
    return root


MACHINE = {"proc/meminfo": "MemTotal: 64 kB\nMemAvailable:   8388608 kB\n"}
V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/memory"


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 8 * GIB),
        ({f"{V2}/memory.max": "max", f"{V2}/memory.current": 5}, 8 * GIB),
        ({f"{V2}/memory.max": 4 * GIB, f"{V2}/memory.current": GIB}, 3 * GIB),
        ({f"{V1}/memory.limit_in_bytes": 2 * GIB, f"{V1}/memory.usage_in_bytes": GIB}, GIB),
        ({f"{V1}/memory.limit_in_bytes": 1 << 63, f"{V1}/memory.usage_in_bytes": GIB}, 8 * GIB),
        ({f"{V2}/memory.max": GIB, f"{V2}/memory.current": 2 * GIB}, 0),
        # A group without a namespace of its own, and the least of those above it.
        (
            {
                "proc/self/cgroup": "0::/a.slice/b.scope\n",
                f"{V2}/a.slice/b.scope/memory.max": "max",
                f"{V2}/a.slice/b.scope/memory.current": 1,
                f"{V2}/a.slice/memory.max": 6 * GIB,
                f"{V2}/a.slice/memory.current": GIB,
            },
            5 * GIB,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,memory:/pod\n1:cpuset:/\n",
                f"{V1}/pod/memory.limit_in_bytes": 3 * GIB,
                f"{V1}/pod/memory.usage_in_bytes": 0,
            },
            3 * GIB,
        ),
        # Idle pages of files are given up when memory is asked for.
        (
            {
                f"{V2}/memory.max": 4 * GIB,
                f"{V2}/memory.current": 3 * GIB,
                f"{V2}/memory.stat": f"anon 5\ninactive_file {2 * GIB}\nactive_file 9\n",
            },
            3 * GIB,
        ),
        (
            {
                f"{V1}/memory.limit_in_bytes": 4 * GIB,
                f"{V1}/memory.usage_in_bytes": 3 * GIB,
                f"{V1}/memory.stat": f"inactive_file 7\ntotal_inactive_file {GIB}\n",
            },
            2 * GIB,
        ),
    ],
)
def test_free_memory_is_the_least_that_anything_leaves(tmp_path, files, free):
    """The machine, and control groups of both versions, here and above."""
    found = free_memory(lay(tmp_path, MACHINE | files))
    assert found.bytes == free
    assert ("control group" in found.source) == (free != 8 * GIB)


def test_a_limit_is_all_that_is_taken_and_else_something_is_left():
    """--memory is the operator's word: nothing is kept back of it."""
    assert machine_room(MIB) == Room(MIB, machine_room(MIB).source, 0)
    free = machine_room(0)
    assert free.usable_bytes == free.free_bytes - free.free_bytes // 5
    beyond = machine_room(1 << 50)
    assert beyond.free_bytes < 1 << 50
    assert gpu_room(GIB, 2 * GIB).usable_bytes == GIB
    assert gpu_room(4 * GIB, 2 * GIB).usable_bytes == 2 * GIB


def test_workers_that_start_at_once_share_what_is_free():
    """Each would see all of it; a GPU of its own, or a limit that was given, is not shared."""
    several = Settings(replicas=4)
    each = with_share(several, ()).memory
    assert 0 < 4 * each <= machine_room(0).free_bytes
    assert with_share(several, ("0",)) == several
    assert with_share(replace(several, device="cpu"), ("0",)).memory > 0
    assert with_share(replace(several, memory=GIB), ()).memory == GIB
    assert with_share(Settings(), ()) == Settings()


def test_parts_have_a_gpu_each_and_the_fullest_bounds_them(monkeypatch):
    """Blocks are as many in every part; with too few GPUs it is refused, with both numbers."""
    two = Settings(tensor_parallel=2)
    assert plan_command._room(two, (8 * GIB, 4 * GIB, GIB)).free_bytes == 4 * GIB
    with pytest.raises(ModelRejected, match=r"--tensor-parallel 2 takes a GPU .* 1 found"):
        plan_command._room(two, (8 * GIB,))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    with pytest.raises(ModelRejected, match=r"--tensor-parallel 4 takes a GPU .* 3 found"):
        torch_computing._gpus(torch.device("cuda"), 4)
    assert [gpu.index for gpu in torch_computing._gpus(torch.device("cuda"), 3)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("script", "free"),
    [
        ("echo 70000; echo 24000", (70_000 * MIB, 24_000 * MIB)),
        ("echo no devices were found; exit 6", ()),
        ("echo '[N/A]'", ()),
    ],
)
def test_free_memory_of_gpus_is_what_their_tool_says(tmp_path, monkeypatch, script, free):
    """A tool that fails means none."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert plan_command.free_of_gpus() == free


@pytest.mark.parametrize(
    ("described", "bfloat16"),
    [
        ("flags\t\t: fpu avx2 avx512dq avx512bw avx512vl\n", True),
        ("flags\t\t: fpu avx2 avx512f\n", False),
        ("Features\t: fp asimd bf16\n", True),
        ("", False),
    ],
)
def test_a_cpu_that_packs_is_known_by_its_flags(described, bfloat16):
    """float32 is packed everywhere."""
    assert plan_command.packs("bfloat16", described) == bfloat16
    assert plan_command.packs("float32", described)
