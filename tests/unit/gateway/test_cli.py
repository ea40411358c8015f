"""The command line's help, and the key that `penstock chat` sends."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

import gateway.terminal_chat
from gateway.cli import app
from gateway.settings import flags_of
from gateway.terminal_chat import ChatFailed


def helped(*arguments, columns):
    run = CliRunner().invoke(app, [*arguments, "--help"], env={"COLUMNS": str(columns)})
    assert run.exit_code == 0, run.output
    return run.output


@pytest.mark.parametrize("command", ["serve", "gateway", "worker"])
@pytest.mark.parametrize("columns", [40, 80, 200])
def test_every_flag_is_whole_in_help(command, columns):
    """A flag that is cut cannot be copied."""
    shown = helped(command, columns=columns).split()
    flags = [f"--{field.name.replace('_', '-')}" for field in flags_of(command)]
    assert set(flags) - {"--model-dir"} <= set(shown)
    assert ("--no-metrics-public" in shown) == (command != "worker")
    assert "[MODEL_DIR]" in shown
    assert "\N{HORIZONTAL ELLIPSIS}" not in "".join(shown)


def test_help_is_within_the_columns():
    """80 of them."""
    for command in ((), ("serve",), ("gateway",), ("worker",), ("chat",), ("check",)):
        assert max(map(len, helped(*command, columns=80).splitlines())) <= 80


def test_help_imports_no_rich():
    """It would cost more than all the rest of help."""
    code = (
        "import sys; from gateway.cli import app; app(['serve', '--help'], standalone_mode=False);"
        "sys.exit('rich' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode
        == 0
    )


@pytest.mark.parametrize(
    ("given", "sent"), [("a,b", "a"), ("a", "a"), (" a , b ", "a"), ("", None), (None, None)]
)
def test_chat_sends_the_first_key(monkeypatch, given, sent):
    """The variable may hold the several keys of a server on the same machine."""
    seen = []

    def connect(_url, key):
        seen.append(key)
        raise ChatFailed("enough")

    monkeypatch.setattr(gateway.terminal_chat, "connect", connect)
    run = CliRunner().invoke(app, ["chat"], env={"PENSTOCK_API_KEY": given})
    assert run.exit_code == 1
    assert seen == [sent]
