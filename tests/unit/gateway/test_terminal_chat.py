"""`penstock chat`: what a server says is shown safely, and only whole answers are kept."""

import io
import json

import httpx2
import pytest

from gateway.terminal_chat import ChatFailed, ChatServer, Conversation, connect, printable, run

ROLE = {"choices": [{"delta": {"role": "assistant", "content": ""}}]}
END = {"choices": [{"delta": {}, "finish_reason": "stop"}]}


def said(text):
    return {"choices": [{"delta": {"content": text}}]}


def sse(*events):
    shown = (event if isinstance(event, str) else json.dumps(event) for event in events)
    return "".join(f"data: {event}\n\n" for event in shown)


class Talk:
    """A chat with a server that gives these answers in turn."""

    def __init__(self, *answers):
        self.asked = []
        self._answers = list(answers)
        http = httpx2.Client(base_url="http://s/v1", transport=httpx2.MockTransport(self._answer))
        self.server = ChatServer(http)

    def _answer(self, request):
        self.asked.append(json.loads(request.content or "null"))
        answer = self._answers.pop(0)
        return httpx2.Response(200, text=answer) if isinstance(answer, str) else answer

    def say(self, *lines):
        run(self.server, Conversation("m", None), io.StringIO("".join(f"{x}\n" for x in lines)))

    def remembered(self, turn):
        return [(message["role"], message["content"]) for message in self.asked[turn]["messages"]]


def test_a_whole_answer_is_shown_and_kept(capsys):
    """The next turn sends it back."""
    talk = Talk(sse(ROLE, said("Hel"), said("lo"), END, "[DONE]"), sse(END, "[DONE]"))
    talk.say("Hi", "more")
    assert "Hello" in capsys.readouterr().out
    assert talk.remembered(1) == [("user", "Hi"), ("assistant", "Hello"), ("user", "more")]


@pytest.mark.parametrize("end", [(END,), ("[DONE]",)])
def test_either_end_mark_completes_an_answer(capsys, end):
    """Some servers send no [DONE], some no finish_reason."""
    talk = Talk(sse(said("Hello"), *end), sse(END))
    talk.say("Hi", "more")
    assert "broke off" not in capsys.readouterr().out
    assert ("assistant", "Hello") in talk.remembered(1)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (sse(ROLE, said("half an")), "broke off"),
        (sse(ROLE), "broke off"),
        ("", "broke off"),
        ("<html>welcome</html>", "broke off"),
        (sse(ROLE, said("half"), {"error": {"message": "the engine died"}}), "the engine died"),
        (sse(ROLE, {"error": {"message": "no [/x] [bold here"}}), "no [/x] [bold here"),
        (sse(ROLE, {"error": "just words"}), "just words"),
        (sse(ROLE, "{not json"), "an event that is none"),
        (sse("[1]"), "an event that is none"),
        (sse({"choices": [1]}), "an event that is none"),
        (httpx2.Response(500, text="<html>"), "500: Internal Server Error"),
        (httpx2.Response(400, json={"error": {"message": "bad [/red]"}}), "400: bad [/red]"),
        (httpx2.Response(400, json={"error": "bad"}), "400: Bad Request"),
        (httpx2.Response(400, json=[1]), "400: Bad Request"),
    ],
)
def test_a_turn_that_failed_is_told_and_forgotten(capsys, answer, told):
    """Neither the question nor half of an answer is sent again."""
    talk = Talk(answer, sse(END))
    talk.say("Hi", "again")
    assert told in capsys.readouterr().out
    assert talk.remembered(1) == [("user", "again")]


def test_an_interrupted_turn_is_forgotten(capsys):
    """Ctrl-C in the middle of an answer, also right after its first event."""

    class Interrupted(ChatServer):
        def stream(self, body):
            asked.append(list(body["messages"]))
            yield "half"
            raise KeyboardInterrupt

    asked = []
    with httpx2.Client() as http:
        run(Interrupted(http), Conversation("m", None), io.StringIO("Hi\nagain\n"))
    assert "stopped" in capsys.readouterr().out
    assert asked[1] == [{"role": "user", "content": "again"}]


def test_an_interrupt_at_the_prompt_leaves(capsys):
    """As the end of the input does."""

    class Keyboard(io.StringIO):
        def readline(self, _size=-1):
            raise KeyboardInterrupt

    run(Talk().server, Conversation("m", None), Keyboard())
    assert capsys.readouterr().out == "you> \n"


@pytest.mark.parametrize("place", ["text", "error", "refusal"])
def test_nothing_a_server_says_commands_the_terminal(capsys, place):
    """Titles, colours, cursor moves, 8-bit controls: what is left is text."""
    evil = "a\x1b]0;title\x07b\x1b[2Jc\x9b31md\x90e\x7f\r\x00\n\tf"
    answers = {
        "text": sse(said(evil), END),
        "error": sse({"error": {"message": evil}}),
        "refusal": httpx2.Response(400, json={"error": {"message": evil}}),
    }
    Talk(answers[place]).say("Hi")
    out = capsys.readouterr().out
    assert "a]0;titleb[2Jc31mde\n" in out
    assert not any(ord(c) < 32 and c not in "\n\t" for c in out)
    assert not any(0x7F <= ord(c) < 0xA0 for c in out)


def test_lone_surrogates_are_shown_as_something(capsys):
    """JSON may spell them; a terminal cannot."""
    Talk(sse('{"choices":[{"delta":{"content":"x\\ud800y"},"finish_reason":"stop"}]}')).say("Hi")
    assert "x?y" in capsys.readouterr().out
    assert printable("é\u4f60🙂") == "é\u4f60🙂"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("<html>welcome</html>", "does not answer as an OpenAI-compatible server"),
        ("[1]", "does not answer as"),
        ('{"data":[{}]}', "does not answer as"),
        ('{"data":[1]}', "does not answer as"),
        ("{}", "does not answer as"),
        ('{"data":[]}', "lists no models"),
        (httpx2.Response(401, json={"error": {"message": "no\x1b key"}}), "401: no key"),
    ],
)
def test_a_model_list_that_is_none_is_one_sentence(answer, told):
    """A wrong base URL often leads to a web page."""
    with pytest.raises(ChatFailed, match=told):
        Talk(answer).server.first_model()


@pytest.mark.parametrize(("url", "key"), [("http://s:port/v1", None), ("http://s/v1", "clé")])
def test_what_cannot_be_sent_is_one_sentence(url, key):
    """A broken URL, a key that is no header."""
    with pytest.raises(ChatFailed, match="cannot be sent"), connect(url, key):
        pass
