"""The OpenVINO runner keeps the step contract; its float32 logits do not depend on the batch."""

import asyncio
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from engines.api import Capability, Sampling
from engines.errors import ModelRejected
from engines.openvino import version
from engines.torch.families import read_facts
from tests.support.engines import ask, limits_for, read, running, stepped
from tests.support.openvino import INSTALLED, needs_openvino, open_openvino, openvino_runner
from tests.support.plans import Driver, Run
from tests.support.tiny_models import TINY_MODELS, VOCAB, by_name, greedy_truth, model_dir, prompts
from tests.support.vectors import true_vectors

if INSTALLED:
    from engines.openvino import graph_cache, known_facts, loading, paged_op
    from engines.openvino.identity import kv_fingerprint

pytestmark = needs_openvino

BLOCK = 32
TOP = 5


def opened(name="llama", dtype="float32"):
    return open_openvino(model_dir(by_name(name)), dtype)


def driver(loaded, seed=0):
    runner = openvino_runner(loaded, num_blocks=120, max_lanes=32)
    return Driver(runner, num_blocks=120, block_size=BLOCK, seed=seed)


def test_a_launched_plan_may_be_overwritten():
    """Its arrays belong to the scheduler again as soon as launch returns."""
    drive, other = driver(opened()), driver(opened())
    plan = drive.plan([Run(drive.start(0, [5, 6, 7]), 3)])
    ticket = drive.runner.launch(plan)
    for name in ("tokens", "positions", "past", "tables", "sample_rows", "sample_lanes"):
        getattr(plan, name)[:] = 1
    seq = other.start(0, [5, 6, 7])
    other.step([Run(seq, 3)])
    assert drive.runner.collect(ticket).tokens.tolist() == seq.generated


def test_a_step_without_samples_returns_none():
    """A chunk that does not reach the end of its prompt."""
    drive = driver(opened())
    plan = drive.plan([Run(drive.start(0, [5, 6, 7, 8]), 2)])
    result = drive.runner.collect(drive.runner.launch(plan))
    assert (len(result.tokens), result.tokens.dtype, result.logprobs) == (0, np.int32, {})


def test_a_step_without_rows_moves_blocks():
    """What only reads and restores computes nothing."""
    drive = driver(opened())
    seq = drive.start(0, prompts(1, longest=40)[0])
    drive.step([Run(seq, seq.pending)])
    (content,) = drive.runner.read_blocks(seq.table[:1])
    drive.step([], restores=[(99, content)])
    (moved,) = drive.runner.read_blocks([99])
    assert moved.any()
    assert moved.tobytes() == content.tobytes()


def test_foreign_tickets_and_closed_runners_are_refused():
    """Both are bugs of the caller."""
    drive = driver(opened())
    plan = drive.plan([Run(drive.start(0, [5, 6]), 2)])
    with pytest.raises(TypeError, match="not a ticket"):
        drive.runner.collect(object())
    drive.runner.close()
    drive.runner.close()
    with pytest.raises(RuntimeError, match="closed"):
        drive.runner.launch(plan)


def test_seeded_sampling_does_not_depend_on_batch_chunks_or_blocks():
    """The same stream alone and among 15 others, in other chunks and other blocks."""
    hot = Sampling(max_tokens=30, temperature=1.5, top_p=0.9, frequency=0.4, seed=5, logprobs=2)
    start, *others = prompts(16, longest=60)
    drive = driver(opened())
    alone = drive.start(0, start, hot)
    drive.finish([alone], 20)
    drive = driver(opened(), seed=9)
    seqs = [drive.start(3, start, hot)]
    seqs += [drive.start(10 + i, other) for i, other in enumerate(others)]
    while seqs[0].pending > 1:
        drive.step([Run(s, min(s.pending, 1 if s.generated else 7)) for s in seqs])
    drive.finish(seqs, 20)
    assert seqs[0].generated == alone.generated
    assert seqs[0].logprobs == alone.logprobs


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3", "mistral-window", "glm4", "cohere"])
def test_float32_logits_are_bit_equal_whatever_the_batch(name):
    """Alone, in chunks beside others, and replayed as rows: the same bits (see the benchmark)."""
    start, *others = prompts(12, longest=70)
    log = [*start, *prompts(1, longest=9, seed=4)[0]]
    loaded = opened(name)
    truth = last_logits(driver(loaded), log, [len(start)] + [1] * 9)
    chunks = [7, 2, 31, len(start) - 40] + [1] * 9
    assert np.array_equal(truth, last_logits(driver(loaded), log, chunks))
    mixed = [20, len(start) - 20] + [1] * 9
    assert np.array_equal(truth, last_logits(driver(loaded, 3), log, mixed, others))
    assert np.array_equal(truth, last_logits(driver(loaded, 4), log, [len(start), -9]))


def last_logits(drive, log, sizes, others=()):
    """Logits of the last token of a log computed in these steps (negative: split into rows)."""
    seq = drive.start(0, log)
    mates = [drive.start(1 + i, other) for i, other in enumerate(others)]
    for size in sizes[:-1]:
        drive.step([Run(seq, size), *(Run(m, m.pending) for m in mates)])
    runs = [Run(seq, abs(sizes[-1]), split=sizes[-1] < 0), *(Run(m, m.pending) for m in mates)]
    return drive.runner.logits(drive.plan(runs))[0].copy()


def test_output_replayed_behind_its_own_prompt_in_one_step_keeps_its_values():
    """The plugin clears what lies behind a chunk in its block: such rows are computed later."""
    start, output = [5, 6, 7, 8, 9], [10, 11, 12, 13]
    drive = driver(opened())
    truth = last_logits(drive, [*start, *output], [len(start), 1, 1, 1, 1])
    for others in ([], prompts(3, longest=50)):
        drive = driver(opened(), seed=2)
        seq = drive.start(0, [*start, *output])
        mates = [drive.start(1 + i, other) for i, other in enumerate(others)]
        first, rest = Run(seq, len(start)), Run(seq, len(output), split=True)
        plan = joined(drive, [first, rest], [Run(mate, mate.pending) for mate in mates])
        assert np.array_equal(drive.runner.logits(plan)[0], truth)


def joined(drive, own, others):
    """A plan that computes several runs of one sequence, and others beside them."""
    chunk, rows = own
    plan = drive.plan([chunk, *others])
    chunk.seq.computed = chunk.rows
    later = drive.plan([rows])
    ends = plan.rows, len(plan.tables)
    return type(plan)(
        *(np.concatenate([getattr(plan, name), getattr(later, name)])
          for name in ("tokens", "positions", "write_slots")),
        row_starts=np.concatenate([plan.row_starts, later.row_starts[1:] + ends[0]]),
        past=np.concatenate([plan.past, later.past]),
        segment_lanes=np.concatenate([plan.segment_lanes, later.segment_lanes]),
        tables=np.concatenate([plan.tables, later.tables]),
        table_starts=np.concatenate([plan.table_starts, later.table_starts[1:] + ends[1]]),
        sample_rows=np.concatenate([later.sample_rows + ends[0], plan.sample_rows]),
        sample_lanes=np.concatenate([later.sample_lanes, plan.sample_lanes]),
        starts=plan.starts,
    )  # fmt: skip


def logits_of(name, dtype, start):
    drive = driver(opened(name, dtype))
    return drive.runner.logits(drive.plan([Run(drive.start(0, start), len(start))]))[0].copy()


def test_bfloat16_is_as_close_to_the_truth_as_transformers_own():
    """Against float32, our bfloat16 errs no more than eager attention in bfloat16."""
    path = model_dir(by_name("llama"))
    start = prompts(1, longest=60)[0]
    drive = driver(loading.open_model(path, dtype="bfloat16", threads=2))
    found = drive.runner.logits(drive.plan([Run(drive.start(0, start), len(start))]))[0]
    truth, theirs = (
        AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="eager")
        .eval()(input_ids=torch.tensor([start]))
        .logits[0, -1]
        .detach()
        .float()
        .numpy()
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert np.abs(found - truth).mean() < 1.3 * np.abs(theirs - truth).mean()


def test_int8_weights_stay_near_the_truth():
    """Rows of 64 random weights at 8 bits: a few hundredths of the logits' spread."""
    start = prompts(1, longest=60)[0]
    truth, found = (logits_of("llama", dtype, start) for dtype in ("float32", "int8"))
    assert not np.array_equal(found, truth)
    assert np.abs(found - truth).mean() < 0.05 * truth.std()


def test_blocks_that_move_are_what_they_were():
    """A sequence goes on in other blocks, which were written from bytes that the first ones had."""
    prompt = prompts(1, longest=40)[0]
    stayed, moved = driver(opened()), driver(opened())
    there, here = (drive.start(0, prompt) for drive in (stayed, moved))
    for drive, seq in ((stayed, there), (moved, here)):
        drive.step([Run(seq, len(prompt))])
    read_back = moved.runner.read_blocks(here.table)
    assert {len(content) for content in read_back} == {moved.runner.block_bytes}
    others = [moved.free.pop() for _ in here.table]
    spoilt = [np.full_like(content, 63) for content in read_back]
    restores = [*zip(others, read_back, strict=True), *zip(here.table, spoilt, strict=True)]
    here.table[:] = others
    for step in range(6):
        stayed.step([Run(there, 1)])
        moved.step([Run(here, 1)], restores=() if step else restores)
    assert here.generated == there.generated


def true_scores(prompt):
    model = AutoModelForCausalLM.from_pretrained(
        model_dir(by_name("llama")), dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.inference_mode():
        return model(input_ids=torch.tensor([prompt])).logits[0, :-1].log_softmax(-1)


def test_prompts_are_scored_as_transformers_scores_them():
    """In a tight pool and small steps, every choice of every request is told once, and exactly."""
    limits = limits_for(vocab_size=VOCAB, block_size=BLOCK, num_blocks=7, tokens_per_step=14)
    can = frozenset(Capability) - {Capability.GRAMMAR}
    starts = [start for start in prompts(8, longest=60, seed=3) if len(start) > 1]

    def runner(limits):
        return openvino_runner(opened(), num_blocks=limits.num_blocks, max_lanes=limits.max_running)

    async def scenario():
        async with running(stepped(limits, runner, can)) as engine:
            streams = [
                engine.generate(
                    ask(f"r{i}", start, n=1 + i % 2, max_tokens=40, prompt_logprobs=TOP)
                )
                for i, start in enumerate(starts)
            ]
            answers = await asyncio.gather(*map(read, streams))
            return answers, engine.load().preemptions

    answers, preemptions = asyncio.run(asyncio.wait_for(scenario(), 120))
    assert preemptions > 0
    for start, told in zip(starts, answers, strict=True):
        expected = true_scores(start)
        for answer in told.values():
            assert len(answer.prompt_logprobs) == len(start) - 1
            for entry, row, token in zip(answer.prompt_logprobs, expected, start[1:], strict=True):
                assert entry.logprob == pytest.approx(row[token].item(), abs=1e-4)
                likeliest = row.topk(TOP).values.tolist()
                assert [value for _, value in entry.top] == pytest.approx(likeliest, abs=1e-4)


def test_a_chat_model_embeds_by_its_last_token():
    """Pooled lanes get the last hidden state, in chunks, beside a chat."""
    path = model_dir(by_name("llama"))
    (text,) = prompts(1, longest=50)
    drive = driver(opened())
    pooled = drive.start(0, text)
    drive.starts[0] = replace(drive.starts[0], pooled=True)
    mate = drive.start(1, [7, 8, 9])
    drive.step([Run(pooled, 20), Run(mate, 3)])
    plan = drive.plan([Run(pooled, pooled.pending), Run(mate, 1)])
    result = drive.runner.collect(drive.runner.launch(plan))
    (truth,) = true_vectors(path, [text], "last", normalise=True)
    assert list(result.vectors) == [0]
    assert np.abs(np.array(result.vectors[0]) - truth).max() < 1e-5


def test_a_graph_is_lowered_once(tmp_path, monkeypatch):
    """The second opening finds what the first has stored, and says the same."""
    path, folder = model_dir(by_name("qwen3")), tmp_path / "graphs"
    prompt = prompts(1, longest=20)[0]
    said = []
    for turn in range(2):
        if turn:
            monkeypatch.setattr(loading, "_lowered", None)  # to call it would raise
        drive = driver(loading.open_model(path, cache=folder, threads=1))
        said += drive.finish([drive.start(0, prompt)], 8)
    assert said == greedy_truth(path, [prompt], 8) * 2
    facts, graph = sorted(folder.iterdir(), key=lambda entry: entry.is_dir())
    assert (graph.name, facts.name[:6], facts.suffix) == (drive_digest(path), "facts-", ".json")


def test_a_model_is_lowered_in_a_process_of_its_own_as_in_this_one(tmp_path, monkeypatch):
    """What it makes is what would be made here; why it cannot is told in the same words."""
    path, folder = model_dir(by_name("qwen3")), tmp_path / "graphs"
    apart = loading.Lowering(apart=True)
    with monkeypatch.context() as patched:
        patched.setattr(loading, "_lowered", None)  # to call it would raise
        drive = driver(loading.open_model(path, cache=folder, threads=1, lowering=apart))
    prompt = prompts(1, longest=20)[0]
    assert drive.finish([drive.start(0, prompt)], 8) == greedy_truth(path, [prompt], 8)
    few = loading.Lowering(free_bytes=1000, apart=True)
    told = r"lowering takes \d+ MiB of memory, once, and 0 MiB are free"
    for lowering in (few, replace(few, apart=False)):
        with pytest.raises(ModelRejected, match=told):
            loading.open_model(path, cache=tmp_path / "others", lowering=lowering)


def test_a_lowering_that_ends_by_itself_is_told(tmp_path, monkeypatch):
    """As one that the system ends for its memory: the worker goes on, or serves with torch."""
    dying = tmp_path / "python"
    dying.write_text("#!/bin/sh\nkill -9 $$\n", encoding="ascii")
    dying.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(dying))
    with pytest.raises(ModelRejected, match=r"could not be lowered: exit code -9, it said nothing"):
        loading.open_model(
            model_dir(by_name("llama")), cache=tmp_path, lowering=loading.Lowering(apart=True)
        )


def test_facts_that_are_kept_are_those_that_are_read(tmp_path):
    """Of every family; what cannot be read there is read anew, and what changed is other facts."""
    for family in TINY_MODELS:
        path = model_dir(family)
        assert known_facts.facts_of(path, tmp_path) == read_facts(path)
    assert len(list(tmp_path.iterdir())) == len(TINY_MODELS)


def test_facts_that_changed_or_broke_are_read_anew(tmp_path, monkeypatch):
    """By the contents of what they are read from, and never from half a file."""
    path = tmp_path / "model"
    path.mkdir()
    config = (model_dir(by_name("llama")) / "config.json").read_text(encoding="utf-8")
    (path / "config.json").write_text(config, encoding="utf-8")
    folder = tmp_path / "graphs"
    first = known_facts.facts_of(path, folder)
    (kept,) = folder.iterdir()
    with monkeypatch.context() as patched:
        patched.setattr(known_facts, "read_facts", None)  # to call it would raise
        assert known_facts.facts_of(path, folder) == first
    for spoilt in ("", "{", "[]", "{}"):
        kept.write_text(spoilt, encoding="ascii")
        assert known_facts.facts_of(path, folder) == first
    (path / "generation_config.json").write_text('{"eos_token_id": [7, 8]}', encoding="ascii")
    assert known_facts.facts_of(path, folder) == replace(first, eos_ids=(7, 8))


def drive_digest(path):
    return graph_cache.graph_digest(path, tuple(sorted(path.glob("*.safetensors"))), "float32")


def test_a_data_type_or_a_changed_weight_is_another_graph(tmp_path):
    """What was lowered from other contents is never taken."""
    source = model_dir(by_name("qwen3"))
    files = tuple(sorted(source.glob("*.safetensors")))
    copies = []
    for file in files:
        (tmp_path / file.name).write_bytes(file.read_bytes())
        copies.append(tmp_path / file.name)
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    copies = tuple(copies)
    same = graph_cache.graph_digest(tmp_path, copies, "float32")
    assert same == graph_cache.graph_digest(source, files, "float32")
    content = bytearray(copies[0].read_bytes())
    content[-1] ^= 1
    copies[0].write_bytes(content)
    dtypes = ("float32", "bfloat16", "int8", "int4")
    changed = {graph_cache.graph_digest(tmp_path, copies, dtype) for dtype in dtypes}
    assert len(changed | {same}) == 5


def test_a_folder_that_cannot_be_had_is_said(tmp_path):
    """By name, before anything is compiled."""
    taken = tmp_path / "file"
    taken.write_text("", encoding="ascii")
    with pytest.raises(ModelRejected, match=f"cannot be kept in {taken}"):
        loading.open_model(model_dir(by_name("llama")), cache=taken, threads=1)


def test_soft_capped_attention_is_refused_by_name():
    """The plugin has no such attention; the model would say something else."""
    with pytest.raises(ModelRejected, match=r"attn_logit_softcapping.*--engine torch"):
        loading.open_model(model_dir(by_name("gemma2")))


def test_another_version_of_openvino_is_refused(monkeypatch):
    """Its private operation was never looked at."""
    monkeypatch.setattr(version, "version", lambda _: "2026.5.0")
    with pytest.raises(ModelRejected, match=r"OpenVINO 2026\.5\.0 .* for 2026\.4"):
        paged_op.check_version()


def test_bfloat16_with_one_thread_is_refused_where_it_would_end_the_process(monkeypatch):
    """The plugin dies of a division there; not of other data types."""
    monkeypatch.setattr(loading, "_has_amx", lambda: True)
    with pytest.raises(ModelRejected, match="one thread"):
        loading._check_threads("bfloat16", 1)
    for dtype in ("float32", "int8", "int4"):
        loading._check_threads(dtype, 1)
    monkeypatch.setattr(loading, "_has_amx", lambda: False)
    loading._check_threads("bfloat16", 1)


def test_kv_contents_of_other_data_types_have_other_prints():
    """Blocks of one are never restored into another."""
    prints = {kv_fingerprint(opened("llama", dtype)) for dtype in ("float32", "int8", "int4")}
    assert len(prints) == 3
    assert {len(each) for each in prints} == {16}


SILENT = """
import socket, sys
sys.path.insert(0, sys.argv[2])
def refuse(*_): raise SystemExit("an outbound call")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from pathlib import Path
from engines.openvino.loading import open_model
open_model(Path(sys.argv[1]), threads=1)
print(sys.modules["openvino.tools.ovc.telemetry_utils"].tm.__name__)
"""


def test_nothing_is_reported_to_anybody(tmp_path):
    """Where the package that reports is installed, it is not imported; and nothing connects."""
    told = "raise SystemExit('reported')\n"
    (tmp_path / "openvino_telemetry.py").write_text(told, encoding="ascii")
    command = [sys.executable, "-W", "ignore", "-c", SILENT]
    ran = subprocess.run(
        [*command, str(model_dir(by_name("llama"))), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout.splitlines()[-1] == "openvino.tools.ovc.telemetry_stub"
