"""The command line: `penstock serve | gateway | worker | plan | chat | check | redis-setup`.

What a command needs is imported when it runs.
"""

import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway import __version__
from gateway.settings import flags_of

if TYPE_CHECKING:
    from socket import socket

    from gateway.settings import Settings

_EXIT_USAGE = 2
_EXIT_REFUSED = 1

app = typer.Typer(
    name="penstock",
    help="An LLM token-streaming gateway: OpenAI dialect in front, paged KV cache behind.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its table cuts long flags at 80 columns, and costs 0.1 s to import
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """The console script."""
    app()


@app.callback(invoke_without_command=True)
def penstock(
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """An LLM token-streaming gateway."""
    if version:
        typer.echo(f"penstock {__version__}")
        raise typer.Exit


def serve(config: Path | None = None, **flags: object) -> None:
    """Serve a model: the bundled demo, or MODEL_DIR as published on the hub."""
    settings = _settings(config, flags)
    listener, url = _listen(settings)

    from gateway.serve import serve as run

    raise typer.Exit(run(settings, listener, url))


def gateway(config: Path | None = None, **flags: object) -> None:
    """Serve what workers compute that `penstock worker` has started, here or elsewhere."""
    settings = _settings(config, flags)
    from gateway.config import ConfigError, check_gateway

    try:
        check_gateway(settings)
    except ConfigError as error:
        raise _refused(error, _EXIT_USAGE) from None
    listener, url = _listen(settings)

    from gateway.serve import front

    raise typer.Exit(front(settings, listener, url))


def worker(
    config: Path | None = None,
    status_fd: int | None = None,
    name: str = "",
    **flags: object,
) -> None:
    """Compute for gateways: load a model and listen for them, and for nobody else."""
    settings = _settings(config, flags)
    from gateway.config import ConfigError, check_worker

    try:
        check_worker(settings)
    except ConfigError as error:
        raise _refused(error, _EXIT_USAGE) from None

    from gateway.workers.process import run

    raise typer.Exit(run(settings, status_fd, name or ""))


def plan(config: Path | None = None, *, as_json: bool = False, **flags: object) -> None:
    """Say what serving a model would take of this machine's memory. Nothing is loaded."""
    settings = _settings(config, flags)
    from engines.errors import ModelRejected
    from gateway.plan_command import plan_of
    from gateway.plan_report import as_lines, as_object

    try:
        made = plan_of(settings)
    except ModelRejected as error:
        raise _refused(error, _EXIT_REFUSED) from None
    if as_json:
        import json

        typer.echo(json.dumps(as_object(made), indent=2))
    else:
        typer.echo("\n".join(as_lines(made)))


def _settings(config: Path | None, flags: dict[str, object]) -> "Settings":
    from gateway.config import ConfigError, quiet_libraries, read_settings

    quiet_libraries()
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return read_settings(given, config=config)
    except ConfigError as error:
        raise _refused(error, _EXIT_USAGE) from None


def _listen(settings: "Settings") -> "tuple[socket, str]":
    from gateway.listener import CannotListen, listen, url_of

    try:
        listener = listen(settings.host, settings.port)
    except CannotListen as error:
        raise _refused(error, _EXIT_REFUSED) from None
    return listener, url_of(listener, settings.host)


def _refused(error: Exception, code: int) -> typer.Exit:
    typer.echo(f"penstock: {error}", err=True)
    return typer.Exit(code)


def _parameters(command: str) -> dict[str, inspect.Parameter]:
    """One option per setting that a command reads: the settings are the only list of flags."""
    config = typer.Option("--config", metavar="FILE", help="YAML file of settings.")
    annotations: dict[str, Any] = {"config": Annotated[Path | None, config]}
    for field in flags_of(command):
        kind = field.metadata["kind"]
        flag = f"--{field.name.replace('_', '-')}"
        if field.name == "model_dir":
            shown: Any = typer.Argument(metavar="MODEL_DIR", help=field.metadata["doc"])
        elif isinstance(field.default, bool):
            shown = typer.Option(f"{flag}/--no-{flag[2:]}", help=_help(field))
        else:
            shown = typer.Option(flag, metavar=kind.metavar, help=_help(field))
        value: Any = bool if isinstance(field.default, bool) else str
        annotations[field.name] = Annotated[list[str] | None if kind.many else value | None, shown]
    if command == "worker":
        status = typer.Option("--status-fd", hidden=True)  # for the one who starts it
        annotations["status_fd"] = Annotated[int | None, status]
        annotations["name"] = Annotated[str | None, typer.Option("--name", hidden=True)]
    if command == "plan":
        as_json = typer.Option("--json", help="Print one JSON object, sizes in bytes.")
        annotations["as_json"] = Annotated[bool, as_json]
    return {
        name: inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=False if name == "as_json" else None,
            annotation=annotation,
        )
        for name, annotation in annotations.items()
    }


def _help(field: Any) -> str:
    notes = [field.metadata["unit"], f"default {field.default}" if field.default else ""]
    noted = ", ".join(filter(None, notes))
    return f"{field.metadata['doc']} ({noted})." if noted else f"{field.metadata['doc']}."


def _with_setting_flags(function: Any) -> Any:
    parameters = _parameters(function.__name__)
    function.__signature__ = inspect.Signature(list(parameters.values()))
    function.__annotations__ = {name: item.annotation for name, item in parameters.items()}
    return function


for _command in (serve, gateway, worker, plan):
    app.command()(_with_setting_flags(_command))


@app.command()
def chat(
    base_url: Annotated[
        str, typer.Option(metavar="URL", help="Any OpenAI-compatible server.")
    ] = "http://127.0.0.1:8000/v1",
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Default: the first it lists.")
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", envvar="PENSTOCK_API_KEY", help="Sent as a bearer key."),
    ] = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="A system message.")] = None,
) -> None:
    """Chat in the terminal with any OpenAI-compatible server. /exit leaves, /new starts over."""
    from gateway.terminal_chat import ChatFailed, Conversation, connect, run

    try:
        with connect(base_url, _first(api_key)) as server:
            run(server, Conversation(model or server.first_model(), system), sys.stdin)
    except ChatFailed as error:
        raise _refused(error, _EXIT_REFUSED) from None


def _first(api_key: str | None) -> str | None:
    """One key: the variable may hold the several that `serve` takes."""
    return (api_key or "").partition(",")[0].strip() or None


@app.command()
def check(
    model_dir: Annotated[
        Path | None, typer.Argument(metavar="MODEL_DIR", help="Default: the bundled demo.")
    ] = None,
) -> None:
    """Say whether a model directory can be served, and its facts, or why not."""
    from engines.errors import ModelRejected
    from gateway.model_check import facts_of

    try:
        facts = facts_of(model_dir)
    except ModelRejected as error:
        raise _refused(error, _EXIT_REFUSED) from None
    width = max(map(len, facts))
    for name, value in facts.items():
        typer.echo(f"{name:<{width}}  {value}")


@app.command()
def redis_setup(
    redis: Annotated[
        str,
        typer.Option(
            metavar="URL", envvar="PENSTOCK_REDIS", show_envvar=False,
            help="With the user who may load functions (default: PENSTOCK_REDIS).",
        ),
    ],
) -> None:  # fmt: skip
    """Put the functions into Redis that gateways and workers call there. Again: nothing changes."""
    import asyncio

    from gateway.redis.setup import SetupFailed, set_up
    from gateway.setting_kinds import redis_url

    try:
        url: Any = redis_url().parse(redis)
        for done in asyncio.run(set_up(url)):
            typer.echo(done)
    except ValueError as error:
        raise _refused(ValueError(f"--redis: {error}"), _EXIT_USAGE) from None
    except SetupFailed as error:
        raise _refused(error, _EXIT_REFUSED) from None
