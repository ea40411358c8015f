"""`penstock chat`: a conversation in the terminal with any OpenAI-compatible server."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import httpx2
from rich.console import Console

_TIMEOUT = httpx2.Timeout(10, read=300)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class ChatFailed(Exception):  # noqa: N818 - told to the user as it is
    """The server cannot be talked to, refused, or broke off. Its words are safe to print."""

    def __init__(self, told: str) -> None:
        super().__init__(printable(told))


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
        try:
            models = answer.json()["data"]
            return str(models[0]["id"])
        except IndexError:
            raise ChatFailed("the server lists no models; name one with --model") from None
        except (ValueError, KeyError, TypeError) as error:
            raise ChatFailed(
                f"{self._http.base_url} does not answer as an OpenAI-compatible server; its path"
                " often ends in /v1"
            ) from error

    def stream(self, body: dict[str, Any]) -> Iterator[str]:
        """The answer's text piece by piece. Raises ChatFailed, also in the middle.

        Ends without an error only after the server said that the answer is complete.
        """
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
        """Forget a question that got no whole answer."""
        self._messages.pop()

    def restart(self) -> None:
        self._messages = list(self._opening)


def printable(text: str) -> str:
    """The text without what a terminal would obey: C0 and C1 controls but line breaks and tabs."""
    return _CONTROLS.sub("", text).encode(errors="replace").decode()


@contextmanager
def connect(base_url: str, api_key: str | None) -> Iterator[ChatServer]:
    """A server by its base URL; /v1 and all, as in any SDK. Raises ChatFailed."""
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        http = httpx2.Client(base_url=base_url, headers=headers, timeout=_TIMEOUT)
    except (httpx2.InvalidURL, UnicodeEncodeError) as error:
        raise ChatFailed("the base URL or the key cannot be sent as it is") from error
    with http:
        yield ChatServer(http)


def run(server: ChatServer, conversation: Conversation, source: IO[str]) -> None:
    """Read turns from `source` until it ends, says /exit, or is interrupted."""
    console = Console(highlight=False, soft_wrap=True, emoji=False)
    while True:
        console.print("[bold]you>[/bold] ", end="")
        try:
            line = source.readline()
        except KeyboardInterrupt:
            line = ""
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
    """Ask and print. A turn without a whole answer is forgotten: half of one would mislead."""
    pieces: list[str] = []
    try:
        for piece in server.stream(conversation.ask(text)):
            pieces.append(piece)
            console.out(printable(piece), end="")
    except (ChatFailed, KeyboardInterrupt) as stop:
        conversation.unasked()
        why = "stopped" if isinstance(stop, KeyboardInterrupt) else str(stop)
        console.print()
        console.print(f"{why} (this turn is forgotten)", style="red", markup=False)
    else:
        conversation.answered("".join(pieces))
        console.print()


def _texts(lines: Iterator[str]) -> Iterator[str]:
    complete = False
    for line in lines:
        data = line.removeprefix("data:").strip()
        if not line.startswith("data:"):
            continue
        if data == "[DONE]":
            return
        try:
            text, finished = _read_event(json.loads(data))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ChatFailed("the server sent an event that is none") from error
        complete = complete or finished
        if text:
            yield text
    if not complete:
        raise ChatFailed("the answer broke off: the server closed the stream before its end")


def _read_event(event: Any) -> tuple[str, bool]:
    """The text of an event, and whether it says that the answer is complete."""
    if event.get("error") is not None:
        raise ChatFailed(_message(event))
    choices = event.get("choices") or ()
    texts = [(choice.get("delta") or {}).get("content") or "" for choice in choices]
    return "".join(texts), any(choice.get("finish_reason") for choice in choices)


def _message(body: Any) -> str:
    """The message of an error object, in the shapes that servers use."""
    error = body.get("error")
    message = error.get("message") if isinstance(error, dict) else error
    return str(message or "the server failed")


def _check(answer: httpx2.Response) -> None:
    if answer.is_success:
        return
    try:
        message = str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = answer.reason_phrase
    raise ChatFailed(f"{answer.status_code}: {message}")
