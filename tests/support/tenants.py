"""Several keys at one server, and what each is told to be cached, by every route that generates."""

import json
import random

import httpx2

from tests.support.command import MODEL

WORDS = ("river", "stone", "lamp", "green", "seven", "winter", "paper", "glass")
ROUTES = ("chat", "completions", "responses", "messages")


def secret(seed, words=150):
    """Words that no other seed has, some two tokens each."""
    rng = random.Random(seed)
    return " ".join(f"{rng.choice(WORDS)}{rng.randrange(1000)}" for _ in range(words))


def key_file(folder, *, groups=None, count=48):
    """A file of that many keys, `sk-0` and so on; `groups` by number."""
    keys = [{"name": f"k{number}", "key": f"sk-{number}"} for number in range(count)]
    for number, group in (groups or {}).items():
        keys[number]["prompt_group"] = group
    path = folder / "keys.json"
    path.write_text(json.dumps({"keys": keys}))
    return path


def asked(route, text, system=None):
    """The path and the body of a call that says a text."""
    user = {"role": "user", "content": text}
    settings = {"model": MODEL, "temperature": 0}
    before = [] if system is None else [{"role": "system", "content": system}]
    match route:
        case "chat":
            return "/chat/completions", {**settings, "messages": [*before, user], "max_tokens": 1}
        case "completions":
            return "/completions", {**settings, "prompt": text, "max_tokens": 1}
        case "responses":
            more = {} if system is None else {"instructions": system}
            return "/responses", {**settings, "input": text, "max_output_tokens": 16, **more}
        case _:
            more = {} if system is None else {"system": system}
            return "/messages", {**settings, "messages": [user], "max_tokens": 1, **more}


def post(url, key, path, body, headers=None):
    headers = {"x-api-key": f"sk-{key}", **(headers or {})}
    return httpx2.post(f"{url}{path}", json=body, headers=headers, timeout=60)


def cached(url, key, route, text, *, system=None, headers=None, **fields):
    """Prompt tokens that came from a cache, as the route tells it, and all of them."""
    path, body = asked(route, text, system)
    answer = post(url, key, path, body | fields, headers)
    assert answer.status_code == 200, answer.text
    return told_by(answer.json())


def told_by(answer):
    """Cached tokens and all tokens of the prompt, in any dialect."""
    usage = answer["usage"]
    if "cache_read_input_tokens" in usage:
        found = usage["cache_read_input_tokens"]
        return found, found + usage["input_tokens"]
    if "input_tokens_details" in usage:
        return usage["input_tokens_details"]["cached_tokens"], usage["input_tokens"]
    return usage["prompt_tokens_details"]["cached_tokens"], usage["prompt_tokens"]
