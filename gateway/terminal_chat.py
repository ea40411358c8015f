"""`penstock chat`: a conversation in the terminal with any OpenAI-compatible server."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import httpx2
from rich.console import Console

_TIMEOUT = httpx2.Timeout(10, read=300)


class ChatFailed(Exception):  # noqa: N818 - told to the user as it is
    """The server cannot be talked to, or refused."""


class ChatServer:
    """The two calls a chat needs, over raw SSE."""

    def __init__(self, http: httpx2.Client) -> None:
        self._http = http

    def first_model(self) -> str:
        """The id of the first model listed. Raises ChatFailed."""
        try:
            answer = self._http.get("/models")
        except httpx2.HTTPError as error:
            raise ChatFailed(f"cannot reach {self._http.base_url}: {error}") from error
        _check(answer)
        models = answer.json().get("data") or []
        if not models:
            raise ChatFailed("the server lists no models; name one with --model")
        return str(models[0]["id"])

    def stream(self, body: dict[str, Any]) -> Iterator[str]:
        """The answer's text piece by piece. Raises ChatFailed, also in the middle."""
        request = {**body, "stream": True}
        try:
            with self._http.stream("POST", "/chat/completions", json=request) as answer:
                if answer.is_error:
                    answer.read()
                _check(answer)
                yield from _texts(answer.iter_lines())
        except httpx2.HTTPError as error:
            raise ChatFailed(f"the connection broke: {error}") from error


class Conversation:
    """Model, messages so far, and what a further turn sends."""

    def __init__(self, model: str, system: str | None) -> None:
        self._model = model
        self._opening = [{"role": "system", "content": system}] if system else []
        self._messages = list(self._opening)

    def ask(self, text: str) -> dict[str, Any]:
        """The request body of the next turn."""
        self._messages.append({"role": "user", "content": text})
        return {"model": self._model, "messages": self._messages}

    def answered(self, text: str) -> None:
        self._messages.append({"role": "assistant", "content": text})

    def unasked(self) -> None:
        """Forget a question that got no answer."""
        self._messages.pop()

    def restart(self) -> None:
        self._messages = list(self._opening)


@contextmanager
def connect(base_url: str, api_key: str | None) -> Iterator[ChatServer]:
    """A server by its base URL; /v1 and all, as in any SDK."""
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    with httpx2.Client(base_url=base_url, headers=headers, timeout=_TIMEOUT) as http:
        yield ChatServer(http)


def run(server: ChatServer, conversation: Conversation, source: IO[str]) -> None:
    """Read turns from `source` until it ends or says /exit."""
    console = Console(highlight=False, soft_wrap=True)
    while True:
        console.print("[bold]you>[/bold] ", end="")
        line = source.readline()
        match line.strip():
            case "" if not line:
                console.print()
                return
            case "/exit" | "/quit":
                return
            case "/new":
                conversation.restart()
            case "":
                pass
            case text:
                _turn(server, conversation, text, console)


def _turn(server: ChatServer, conversation: Conversation, text: str, console: Console) -> None:
    pieces: list[str] = []
    try:
        for piece in server.stream(conversation.ask(text)):
            pieces.append(piece)
            console.out(piece, end="")
    except (ChatFailed, KeyboardInterrupt) as stop:
        console.print(f"\n[red]{'stopped' if isinstance(stop, KeyboardInterrupt) else stop}[/red]")
    console.print()
    if pieces:
        conversation.answered("".join(pieces))
    else:
        conversation.unasked()


def _texts(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        data = line.removeprefix("data:").strip()
        if not line.startswith("data:") or data == "[DONE]":
            continue
        event = json.loads(data)
        if "error" in event:
            raise ChatFailed(event["error"].get("message", "the server failed"))
        for choice in event.get("choices") or ():
            yield (choice.get("delta") or {}).get("content") or ""


def _check(answer: httpx2.Response) -> None:
    if answer.is_success:
        return
    try:
        message = answer.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = answer.reason_phrase
    raise ChatFailed(f"{answer.status_code}: {message}")
