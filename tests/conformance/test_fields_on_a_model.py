"""Fields that steer the bundled model, sent by the stock client and seen in its answers."""

import openai
import pytest

from engines.bundled import penstock_tiny
from gateway.opening import open_engine
from gateway.setting_kinds import Secret
from tests.support.live import MODEL, live, test_settings

pytestmark = pytest.mark.skipif(
    not (penstock_tiny() / "model.safetensors").exists(), reason="no bundled weights here"
)
ASKED = "What is Penstock?"
IDS = {"return_token_ids": True}
KEYS = ("sk-one", "sk-two")


@pytest.fixture(scope="module")
def server():
    keys = tuple(map(Secret, KEYS))
    settings = test_settings(model_dir=None, max_running=8, api_key=keys)
    with live(settings, opener=open_engine) as server:
        yield server


def client(server, key=KEYS[0]):
    return openai.OpenAI(base_url=server.url, api_key=key, max_retries=0)


@pytest.fixture
def sdk(server):
    with client(server) as sdk:
        yield sdk


def ask(sdk, extra=None, **fields):
    """A greedy chat; `extra` are the fields that the SDK has no name for."""
    messages = fields.pop("messages", [{"role": "user", "content": ASKED}])
    asked = {"model": MODEL, "messages": messages, "temperature": 0, "max_tokens": 40, **fields}
    return sdk.chat.completions.create(**asked, extra_body=extra or {})


def said(answer):
    return answer.choices[0].message.content


def test_only_allowed_tokens_are_said(sdk):
    """And an answer of them alone runs to its limit."""
    free = ask(sdk, IDS).choices[0].token_ids
    allowed = sorted(set(free[:4]))
    answer = ask(sdk, {**IDS, "allowed_token_ids": allowed}, max_tokens=12)
    assert set(answer.choices[0].token_ids) <= set(allowed)
    assert answer.choices[0].finish_reason == "length"


def test_a_bad_word_is_not_said(sdk):
    """One that the free answer has, in whatever place."""
    word = max(said(ask(sdk)).replace(".", " ").split(), key=len)
    answer = said(ask(sdk, {"bad_words": [word]}))
    assert answer
    assert word not in answer


def test_stop_tokens_end_an_answer_and_may_be_shown(sdk):
    """The ids are those of the free answer."""
    free = ask(sdk, IDS)
    ids = free.choices[0].token_ids
    place = next(at for at, token in enumerate(ids) if at > 2 and token not in ids[:at])
    stopped = ask(sdk, {**IDS, "stop_token_ids": [ids[place]]})
    assert stopped.choices[0].token_ids == ids[: place + 1]
    assert stopped.choices[0].finish_reason == "stop"
    shown = ask(sdk, {"stop_token_ids": [ids[place]], "include_stop_str_in_output": True})
    assert said(free).startswith(said(shown))
    assert len(said(shown)) > len(said(stopped))


def test_ignore_eos_and_min_tokens_hold_back_the_end(sdk):
    """The free answer to this ends early."""
    hello = [{"role": "user", "content": "Hello!"}]
    free = ask(sdk, messages=hello).usage.completion_tokens
    assert free < 40
    assert ask(sdk, {"ignore_eos": True}, messages=hello).usage.completion_tokens == 40
    assert ask(sdk, {"min_tokens": free + 5}, messages=hello).usage.completion_tokens >= free + 5


def test_a_turn_is_continued_from_where_it_stands(sdk):
    """Greedy: half an answer, continued, is the whole one."""
    whole = said(ask(sdk))
    half = whole[: len(whole) // 2].rpartition(" ")[0]
    messages = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": half}]
    extra = {"continue_final_message": True, "add_generation_prompt": False}
    assert half + said(ask(sdk, extra, messages=messages)) == whole


def test_a_long_prompt_is_cut_where_that_is_asked(sdk):
    """Its tokens are counted as they are used; not asked, it is refused."""
    long = [{"role": "user", "content": "water " * 4000}]
    answer = ask(sdk, {"truncate_prompt_tokens": 100}, messages=long)
    assert answer.usage.prompt_tokens == 100
    everything = ask(sdk, {"truncate_prompt_tokens": -1}, messages=long)
    assert everything.usage.prompt_tokens == 2048 - 40
    with pytest.raises(openai.BadRequestError):
        ask(sdk, messages=long)


def test_a_salt_of_the_client_parts_the_cache_and_never_joins_it(server):
    """Within a key the salt shares and parts prefixes; across keys nothing is ever shared."""
    long = [{"role": "user", "content": "The gate is opened, and the wheel turns. " * 8}]

    def cached(key, extra):
        with client(server, key) as sdk:
            answer = ask(sdk, extra, messages=long, max_tokens=1)
        return answer.usage.prompt_tokens_details.cached_tokens

    assert cached(KEYS[0], {"cache_salt": "a"}) == 0
    assert cached(KEYS[0], {"cache_salt": "a"}) > 0
    assert cached(KEYS[0], {"cache_salt": "b"}) == 0
    assert cached(KEYS[0], {}) == 0
    assert cached(KEYS[1], {"cache_salt": "a"}) == 0


def test_a_seed_repeats_an_answer_and_n_gives_others(sdk):
    """Sampled at a temperature at which the model has more than one thing to say."""
    story = [{"role": "user", "content": "Tell me a story."}]
    first, again = (ask(sdk, temperature=2, seed=11, n=3, messages=story) for _ in range(2))
    texts = [choice.message.content for choice in first.choices]
    assert texts == [choice.message.content for choice in again.choices]
    assert len(set(texts)) > 1


def test_padded_streams_read_as_plain_ones(sdk):
    """The stock client takes the letters for nothing."""
    options = {"include_usage": True, "include_obfuscation": True}
    chunks = list(ask(sdk, stream=True, stream_options=options))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == said(ask(sdk))
    assert chunks[-1].usage.completion_tokens == ask(sdk).usage.completion_tokens
