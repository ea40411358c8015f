"""What a model directory brings besides its weights."""

import json
import shutil

import pytest

from engines.bundled import penstock_tiny
from gateway.model_directory import read_text_side


@pytest.fixture
def defaults(tmp_path):
    """The sampling defaults that are read from a generation_config.json."""

    def read(generation):
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(penstock_tiny() / name, tmp_path)
        text = generation if isinstance(generation, str) else json.dumps(generation)
        (tmp_path / "generation_config.json").write_text(text)
        return dict(read_text_side(tmp_path).defaults)

    return read


def test_a_models_own_sampling_values_are_read(defaults):
    """Those within the bounds; other fields of the file are not ours."""
    given = {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0, "repetition_penalty": 1.1}
    assert defaults({**given, "eos_token_id": 1, "do_sample": True}) == given


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1), ("temperature", 2.1), ("temperature", True), ("temperature", "1"),
        ("top_p", 0), ("top_p", 0.0), ("top_p", 1.1), ("top_p", None),
        ("top_k", -2), ("top_k", 1 << 30), ("top_k", 1.5),
        ("min_p", 1.1),
        ("repetition_penalty", 0), ("repetition_penalty", 10.1), ("repetition_penalty", [1]),
    ],
)  # fmt: skip
def test_a_value_that_no_client_could_ask_for_is_no_default(defaults, name, value):
    """The bounds are the dialect's own; 0 for top_p or repetition_penalty has no meaning."""
    assert defaults({name: value, "temperature" if name != "temperature" else "top_p": 0.5}) == {
        "temperature" if name != "temperature" else "top_p": 0.5
    }


def test_numbers_that_are_none_are_no_defaults(defaults):
    """Python writes NaN and Infinity into JSON."""
    assert defaults('{"temperature": NaN, "top_p": Infinity}') == {}
