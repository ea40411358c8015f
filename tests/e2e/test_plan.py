"""`penstock plan` as an operator runs it, against what `penstock serve` then does."""

import json
import re
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from engines.bundled import penstock_tiny
from tests.support.command import ROOT, clean_environment, served
from tests.support.openvino import INSTALLED

BUNDLED = (penstock_tiny() / "model.safetensors").exists()
pytestmark = pytest.mark.skipif(not BUNDLED, reason="no bundled weights here")
MIB = 1 << 20
ENOUGH, SMALL = "800MiB", "600MiB"


def penstock(*arguments):
    """Run to the end."""
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_what_is_planned_is_what_is_served():
    """The blocks that the start prints, and all that the process then holds."""
    flags = ("--memory", ENOUGH, "--dtype", "bfloat16", "--block-size", "16", "--max-running", "32")
    run = penstock("plan", "--json", *flags)
    assert run.returncode == 0, run.stderr
    plan = json.loads(run.stdout)
    blocks, context = plan["kv"]["blocks"], plan["kv"]["max_context"]
    assert plan["total_bytes"] <= 800 * MIB
    with served(*flags) as server:
        kv = re.search(r"KV cache: (\d+) blocks of 16 tokens = (\d+) tokens", server.output)
        assert (int(kv[1]), int(kv[2])) == (blocks, blocks * 16)
        model = httpx2.get(f"{server.url}/models").json()["data"][0]
        assert model["max_model_len"] == context
        httpx2.post(
            f"{server.url}/completions",
            json={"model": model["id"], "prompt": "Once", "max_tokens": 8},
            timeout=60,
        ).raise_for_status()
        held = sum(map(private_bytes, family(server.process.pid)))
    assert held <= plan["total_bytes"], f"{held / MIB:.0f} MiB are held"


def family(pid):
    """A process and all below it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [pid, *(each for child in children for each in family(child))]


def private_bytes(pid):
    """Pages of a process that no file is behind."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) << 10


def test_a_model_that_does_not_fit_is_refused_before_it_is_loaded():
    """By the plan and by the server, in the same words."""
    planned = penstock("plan", "--memory", SMALL)
    assert planned.returncode == 1
    refusal = planned.stderr.strip().removeprefix("penstock: ")
    assert refusal.startswith("the model does not fit: it needs ")
    assert "but has 600.0 MiB" in refusal
    assert "\n" not in refusal
    run = penstock("serve", "--port", "0", "--memory", SMALL)
    assert run.returncode == 1
    assert refusal in run.stdout
    assert "loading weights" not in run.stdout


def test_a_kv_cache_that_does_not_fit_is_refused_before_anything_is_loaded():
    """With the size that would fit, which then does."""
    flags = ("--memory", ENOUGH, "--kv-cache-memory")
    planned = penstock("plan", *flags, "900MiB")
    assert planned.returncode == 1
    fits = re.search(r"lower --kv-cache-memory to (\d+MiB) or less", planned.stderr)[1]
    run = penstock("serve", "--port", "0", *flags, "900MiB")
    assert run.returncode == 1
    assert f"lower --kv-cache-memory to {fits} or less" in run.stdout
    assert "loading weights" not in run.stdout
    assert penstock("plan", *flags, fits).returncode == 0


def test_a_plan_is_a_table_and_imports_no_torch():
    """For people: what is taken, by kind, and what fits at which length."""
    code = (
        "import sys; from gateway.cli import app; app(['plan', '--memory', '4G'],"
        " standalone_mode=False); print({'torch', 'transformers'} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, env=clean_environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = run.stdout.splitlines()
    assert lines[0] == "penstock-tiny on cpu, float32"
    held = "29.9" if INSTALLED else "33.0"  # torch packs the head beside the embedding
    told = rf"weights +{re.escape(held)} MiB  as they will be held, in float32"
    assert any(re.fullmatch(told, line) for line in lines)
    assert any(re.fullmatch(r" +1024 +128 +64", x) for x in lines)
    assert any("--max-context 2048, and 4096 blocks" in x for x in lines)
    assert lines[-1] == "set()"


def test_other_engines_are_not_planned():
    """What they take is not ours to say."""
    run = penstock("plan", "--engine", "ledger")
    assert run.returncode == 1
    assert "--engine ledger is not planned" in run.stderr


def test_workers_share_what_there_is():
    """Four of them get a quarter each."""
    one, four = (
        json.loads(penstock("plan", "--json", "--replicas", count).stdout) for count in ("1", "4")
    )
    usable = one["memory"]["free_bytes"] - one["memory"]["headroom_bytes"]
    assert four["memory"]["free_bytes"] == pytest.approx(usable / 4, rel=0.2)
