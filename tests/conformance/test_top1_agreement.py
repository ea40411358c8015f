"""bfloat16 and float32 would say the same: the likeliest next token, over text people wrote."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from engines.bundled import penstock_tiny
from engines.torch.loading import open_model as open_torch
from engines.torch.runner import TorchRunner
from tests.support.openvino import graph_folder, needs_openvino, openvino_runner
from tests.support.plans import Driver, Run
from tests.support.texts import bundled_windows

WINDOWS, LENGTH = 8, 512
BLOCK = 32
BLOCKS = LENGTH // BLOCK


@cache
def windows():
    return bundled_windows(count=WINDOWS, length=LENGTH)


@cache
def said_by_transformers(dtype):
    """The likeliest next token at each position, [windows, positions], by its own attention."""
    model = AutoModelForCausalLM.from_pretrained(
        penstock_tiny(), dtype=getattr(torch, dtype), attn_implementation="eager"
    ).eval()
    with torch.inference_mode():
        logits = [model(input_ids=torch.tensor([window])).logits[0] for window in windows()]
    return np.stack([rows.argmax(-1).numpy() for rows in logits])


def torch_runner(dtype):
    loaded = open_torch(penstock_tiny(), dtype=dtype, device="cpu")
    return TorchRunner(loaded, num_blocks=BLOCKS, block_size=BLOCK, max_lanes=1)


def lowered_runner(dtype):
    from engines.openvino.loading import open_model  # noqa: PLC0415 - where it is installed

    loaded = open_model(penstock_tiny(), dtype=dtype, cache=graph_folder(), threads=2)
    return openvino_runner(loaded, num_blocks=BLOCKS, max_lanes=1)


def said_by(runner):
    """The same by a runner of ours: each window one chunk, the logits of all its rows asked."""
    rows = np.arange(LENGTH, dtype=np.int32)
    said = []
    for window in windows():
        drive = Driver(runner, num_blocks=BLOCKS, block_size=BLOCK)
        plan = drive.plan([Run(drive.start(0, window), LENGTH)])
        plan = replace(plan, sample_rows=rows, sample_lanes=np.zeros(LENGTH, np.int32))
        said.append(np.asarray(runner.logits(plan)).argmax(-1))
    return np.stack(said)


def agreement(found):
    return float((found == said_by_transformers("float32")).mean())


@pytest.mark.parametrize("make", [pytest.param(lowered_runner, marks=needs_openvino), torch_runner])
def test_bfloat16_agrees_with_float32_on_the_likeliest_token(make):
    """At 99 of 100 positions of 4,096, on the same weights."""
    assert agreement(said_by(make("bfloat16"))) >= 0.99


@pytest.mark.parametrize("make", [pytest.param(lowered_runner, marks=needs_openvino), torch_runner])
def test_float32_agrees_with_float32_everywhere(make):
    """So that what bfloat16 misses is its rounding, and nothing of ours."""
    assert agreement(said_by(make("float32"))) >= 0.9995
