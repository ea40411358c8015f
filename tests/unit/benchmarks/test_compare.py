"""What a comparison tells: spread, gains, bounds, the table and the plot."""

import fcntl
import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from benchmarks.compare.__main__ import chosen_for, held
from benchmarks.compare.floors import bound, prefill_bound
from benchmarks.compare.models import SHAPES
from benchmarks.compare.plot import Bar, Group, svg
from benchmarks.compare.report import (
    bounds,
    bounds_table,
    drawing,
    gain,
    refused,
    spread,
    summary,
    table,
)
from benchmarks.compare.servers import Work, llama, penstock, vllm
from benchmarks.scenarios import SCENARIOS
from benchmarks.watch import cpu_seconds, memory_mib, tree, wait_quiet, watched

FLOOR = {"read_gb_s": 20.0} | {
    f"gemm_{rows}_gflop_s": rate
    for rows, rate in ((1, 10.0), (16, 200.0), (64, 400.0), (256, 500.0), (2048, 450.0))
}


def run(scenario, server, repeat, **more):
    """One run as the runner writes it."""
    figures = {
        "tok_s": 100.0, "tpot_ms": 10.0, "ttft_p50_ms": 50.0, "ttft_p99_ms": 60.0,
        "itl_p50_ms": 10.0, "itl_p99_ms": 11.0, "itl_max_ms": 12.0, "cpu_s": 1.0,
        "rss_mib": 500.0, "pss_mib": 400.0, "others": 0.01,
    }  # fmt: skip
    told = {"scenario": scenario, "server": server, "repeat": repeat}
    return {**told, "figures": figures | more}


def result(runs):
    """A whole comparison of these runs."""
    return {
        "model": "M", "runs": runs, "starts": {"penstock": [4.0], "vllm": [60.0, 40.0]},
        "quiet": 0.08, "threads": 2, "floors": {"1": FLOOR, "2": FLOOR},
    }  # fmt: skip


RUNS = [
    run("b16", "penstock", 0, tok_s=300.0, tpot_ms=8.0),
    run("b16", "vllm", 0, tok_s=100.0, tpot_ms=16.0),
    run("b16", "vllm", 1, tok_s=120.0, tpot_ms=32.0),
    run("b16", "penstock", 1, tok_s=500.0, tpot_ms=10.0, others=0.3),
    {"scenario": "b16", "server": "vllm", "repeat": 2, "refused": "asked for 128, got 12"},
]


def test_a_spread_is_median_least_and_most():
    """Of any order."""
    told = spread([3.0, 1.0, 2.0])
    assert (told.median, told.least, told.most) == (2.0, 1.0, 3.0)
    assert str(told) == "2 [1-3]"


def test_a_gain_is_above_one_where_ours_is_better():
    """More tokens, or less time."""
    assert gain("tok_s", 200.0, 100.0) == 2.0
    assert gain("tpot_ms", 5.0, 10.0) == 2.0
    assert gain("rss_mib", 10.0, 5.0) == 0.5


def test_a_summary_keeps_servers_apart_and_leaves_out_what_was_refused():
    """Whatever the turns were."""
    told = summary(RUNS)
    assert list(told) == ["b16"]
    assert list(told["b16"]) == ["penstock", "vllm"]
    assert told["b16"]["penstock"]["tok_s"].median == 400.0
    assert told["b16"]["vllm"]["tok_s"].most == 120.0
    assert [one["repeat"] for one in refused(result(RUNS))] == [2]


def test_the_table_tells_ratios_refusals_and_disturbance():
    """Nothing that lessens a figure is left out."""
    text = table(result(RUNS))
    rates = next(line for line in text.splitlines() if line.strip().startswith("tok_s"))
    assert "400 [300-500]" in rates
    assert "110 [100-120] 3.64x" in rates
    assert "refused: vllm, asked for 128, got 12" in text
    assert "in 1 of 4 runs" in text
    assert "30%" in text
    assert "vllm          50 [40-60]" in text


@pytest.mark.parametrize(("name", "millions"), [("S", 13.04), ("M", 100.1), ("L", 494.0)])
def test_shapes_have_the_sizes_that_they_are_told_by(name, millions):
    """Counted from what they consist of, but for the norms."""
    assert SHAPES[name].parameters / 1e6 == pytest.approx(millions, rel=1e-3)


def test_one_row_is_bound_by_memory_and_many_by_arithmetic():
    """The larger of both; of one row the weights are all that counts."""
    shape = SHAPES["M"]
    one = bound(shape, FLOOR, 1, 0)
    assert one.by == "memory"
    assert one.ms == pytest.approx(shape.parameters * 2 / 20e9 * 1e3)
    many = bound(shape, FLOOR, 64, 0)
    assert many.by == "arithmetic"
    assert many.ms == pytest.approx(64 * 2 * shape.parameters / 400e9 * 1e3)
    assert bound(shape, FLOOR, 1, 1000).ms - one.ms == pytest.approx(12_288 * 1000 / 20e9 * 1e3)


def test_a_prompt_is_held_against_the_best_rate_of_this_machine():
    """And its head is computed once."""
    shape = SHAPES["M"]
    least = prefill_bound(shape, FLOOR, 1)
    assert least.ms == pytest.approx(shape.flops() / 500e9 * 1e3)
    assert prefill_bound(shape, FLOOR, 2048).ms < 2048 * shape.flops(2048) / 500e9 * 1e3


def test_steps_are_told_beside_their_bound():
    """As the part of it that a server reaches."""
    told = bounds(result(RUNS))["b16"]
    assert told["of_it"]["penstock"] == pytest.approx(told["bound"]["ms"] / 9.0)
    assert "penstock" in bounds_table(result(RUNS))


def test_the_plot_is_svg_whose_bars_are_to_scale():
    """Every server of a group by one scale, in one colour throughout, with what it came to."""
    groups = [
        Group("one <&>", [Bar("penstock", 400, 300, 500), Bar("vllm", 100, 90, 110)]),
        Group("two", [Bar("penstock", 4, 4, 4), Bar("vllm", 5, 5, 5)]),
    ]
    root = ET.fromstring(svg("Tokens & seconds", "a note", groups))
    bars = [one for one in root.iter() if one.tag.endswith("rect")][2:]  # behind those of the key
    widths = [float(one.get("width")) for one in bars]
    assert widths[0] == pytest.approx(4 * widths[1], rel=1e-2)
    assert widths[2] == pytest.approx(0.8 * widths[3], rel=1e-2)
    assert bars[0].get("fill") == bars[2].get("fill") != bars[1].get("fill")
    texts = [one.text for one in root.iter() if one.tag.endswith("text")]
    assert {"one <&>", "400", "100 (0.25 of it)", "a note"} <= set(texts)
    height = float(root.get("viewBox").split()[3])
    assert all(float(one.get("y")) + float(one.get("height")) < height for one in bars)


def test_a_plot_without_a_colour_for_each_server_is_refused():
    """Rather than drawn with two that look the same."""
    with pytest.raises(ValueError, match="colours"):
        svg("", "", [Group("g", [Bar(f"s{number}", 1, 1, 1) for number in range(5)])])


def test_a_comparison_is_drawn_without_prompts_that_have_no_answers():
    """Their tokens per second say nothing."""
    told = drawing([result([*RUNS, run("p", "penstock", 0)])], "note")
    assert "M, b16" in told
    assert ">vLLM<" in told
    assert "M, p" not in told


_BUSY = "import time\nends = time.process_time() + 0.4\nwhile time.process_time() < ends: pass\n"
_PARENT = (
    "import subprocess, sys\n"
    f"subprocess.run([sys.executable, '-c', {_BUSY!r}])\n"
    "print('ended', flush=True)\n"
    "other = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=sys.stdin)\n"
    "other.wait()\n"
)


def test_what_a_server_and_all_its_processes_take_is_counted():
    """Those that have ended, too; memory is of those that are there."""
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        with watched(server.pid) as cost:
            server.stdout.readline()
        assert cost.cpu_s >= 0.4
        assert cpu_seconds(server.pid) >= cost.cpu_s
        rss, pss = memory_mib(server.pid)
        assert rss >= pss > 0
        assert server.pid in {one.pid for one in tree(server.pid)}
        server.stdin.close()
        server.wait()


def test_what_others_take_is_seen():
    """A process that is neither the server nor the client takes a core's share meanwhile."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        with watched(None) as cost:
            assert not wait_quiet(0.0, at_most_s=0.5)
        other.kill()
    assert cost.others > 0


def test_the_small_model_talks_longer_so_that_the_long_prompt_meets_it():
    """Its chats of 128 tokens would be over; of all else every model does the same."""
    chats, late = chosen_for("S", "d").asks[:-1], chosen_for("S", "d").asks[-1]
    assert {one.output for one in chats} == {512}
    assert late == SCENARIOS["d"].asks[-1]
    assert chosen_for("M", "d") == SCENARIOS["d"]
    assert chosen_for("S", "b16") == SCENARIOS["b16"]


def test_a_lock_keeps_others_still_until_it_is_let_go(tmp_path):
    """Whoever holds the same file, in whichever program; without one nothing is waited for."""
    path = tmp_path / "lock"

    def taken():
        with path.open("a") as opened:
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    with held(path):
        assert not taken()
    assert taken()
    with held(None):
        assert taken()


def test_servers_have_the_same_room_and_threads(tmp_path):
    """For as many tokens in each one's own units."""
    work = Work(tmp_path / "M", "M", kv_tokens=40_960, slots=16, threads=2)
    (tmp_path / "M-bf16.gguf").touch()
    ours = [str(word) for word in penstock(work).command]
    theirs = [str(word) for word in vllm(work).command]
    others = [str(word) for word in llama(work).command]
    assert int(ours[ours.index("--kv-cache-memory") + 1]) == 40_960 * SHAPES["M"].kv_bytes()
    blocks, size = "--num-gpu-blocks-override", "--block-size"
    both = int(theirs[theirs.index(blocks) + 1]), int(theirs[theirs.index(size) + 1])
    assert both[0] * both[1] == 40_960
    assert others[others.index("--ctx-size") + 1] == "40960"
    assert ours[ours.index("--threads") + 1] == others[others.index("--threads") + 1] == "2"
    assert ours[ours.index("--speculate") + 1] == "0", "the others guess nothing either"
    assert "--no-kv-unified" in others
    assert "--kv-unified" in llama(replace(work, slots=64)).command
