"""Questions about Penstock and about serving language models."""

# Templates and word lists read best in one piece.
# ruff: noqa: E501

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import Sample, chat, pick, sloppy

if TYPE_CHECKING:
    import random

_TERMS: dict[str, list[str]] = {
    "TTFT|time to first token|the TTFT": [
        "TTFT means time to first token: how long it takes from sending a request until the first token arrives. A low TTFT makes a chat feel fast.",
    ],
    "the KV cache|a KV cache|KV cache": [
        "The KV cache stores the keys and values of the tokens already read, so that the model does not compute them again for every new token. It trades memory for speed.",
    ],
    "a paged KV cache|the paged KV cache|paged KV caching|paged attention": [
        "A paged KV cache splits the memory into small blocks of equal size, like the pages of an operating system. Each sequence gets blocks as it grows, so little memory is wasted.",
    ],
    "a prefix cache|the prefix cache|prefix caching": [
        "A prefix cache keeps the KV blocks of prompts seen before. When a new prompt starts with the same tokens, the blocks are shared and only the rest is computed.",
    ],
    "continuous batching|in-flight batching": [
        "Continuous batching means that requests join and leave the running batch at every step. A new request does not wait until the whole batch has finished.",
    ],
    "SSE|server-sent events|an SSE stream": [
        "SSE means server-sent events: the server keeps one HTTP response open and sends small data lines. Penstock streams tokens to the client this way.",
    ],
    "preemption|a preempted request": [
        "Preemption means that a running request is put back into the queue when memory runs out. Its blocks are freed, and the request goes on later.",
    ],
    "a token|tokens|a token in a language model": [
        "A token is a small piece of text, such as a word or a part of a word. A model reads and writes text token by token.",
    ],
    "streaming|token streaming": [
        "Streaming means that each token is sent as soon as it is made. You can read the answer while the model is still writing.",
    ],
    "a gateway|an LLM gateway": [
        "A gateway stands between the clients and the models. It takes requests, sends them to an engine and streams the tokens back.",
    ],
    "TPOT|ITL|inter-token latency|time per output token": [
        "Inter-token latency is the time between two tokens of one answer. A low value makes the text flow smoothly.",
    ],
    "a tokenizer|the tokenizer": [
        "A tokenizer cuts text into tokens and joins tokens into text again. Mine is a byte-level BPE tokenizer.",
    ],
    "prefill|the prefill phase": [
        "Prefill is the first phase of a request: the model reads the whole prompt at once and fills the KV cache. Then decoding starts.",
    ],
    "decoding|decode|the decode phase": [
        "Decoding is the second phase of a request: the model makes one token at a time, and each new token is added to the KV cache.",
    ],
    "temperature|the temperature setting|sampling temperature": [
        "The temperature sets how random the next token is. At 0 the model always takes the most likely token; higher values give more variety.",
    ],
    "top_p|nucleus sampling": [
        "With top_p the model samples only from the most likely tokens whose chances add up to p. It cuts off the unlikely ones.",
    ],
    "a context window|the context length|context length": [
        "The context length is the largest number of tokens that a model can look at. Mine is 2048 tokens.",
    ],
    "a tool call|tool calling|function calling": [
        "With a tool call the model asks the program to run a function. The program sends the result back, and the model uses it in its answer.",
    ],
    "a stop sequence|stop sequences": [
        "A stop sequence is a text that ends the answer. When the model writes it, the server stops the stream.",
    ],
    "backpressure|back pressure": [
        "Backpressure means slowing down the sender when the reader is slow. It keeps buffers small when a client reads its stream slowly.",
    ],
    "an LLM|a large language model|a language model": [
        "A language model predicts the next token of a text. A large one has billions of parameters; I have only a few million.",
    ],
    "a penstock|the word penstock": [
        "A penstock is a pipe or gate that controls the flow of water to a turbine. Penstock does the same for a stream of tokens.",
    ],
    "throughput": [
        "Throughput is the number of tokens that a server makes per second for all requests together.",
    ],
    "cancellation|request cancellation": [
        "Cancellation means that a request is stopped when the client goes away. Its memory is freed at once for the others.",
    ],
}
_WHAT = [
    "What is {t}?",
    "[Explain|Define] {t}[.|, please.]",
    "What does {t} mean?",
    "Can you explain {t}?",
    "Tell me [about|what is] {t}.",
    "What is meant by {t}?",
    "What's {t}?",
    "Explain {t} in simple words.",
    "I do not understand {t}.",
    "How does {t} work?",
    "Why is {t} [useful|important]?",
]

_HOWTO: list[tuple[list[str], list[str]]] = [
    (
        [
            "What is Penstock?",
            "[Explain|Describe] Penstock[.|, please.]",
            "Tell me about Penstock.",
            "What does Penstock do?",
            "What's Penstock?",
            "Can you [explain|describe] Penstock?",
            "What is [the Penstock project|Penstock for|Penstock used for]?",
            "What is this project?",
            "What is Penstock[ in one sentence|, briefly]?",
            "Why [should I|would I] use Penstock?",
            "Do you know Penstock?",
        ],
        [
            "Penstock is an LLM token-streaming gateway. It takes chat requests over an OpenAI-compatible API and streams the tokens back as they are made.",
        ],
    ),
    (
        [
            "How do I [start|run|launch] [Penstock|the server|the gateway]?",
            "How can I [start|run] Penstock?",
            "Which command starts the server?",
            "How do I get started[ with Penstock|]?",
            "How do I serve a model?",
        ],
        ["Run `make serve` in the repository. The server then listens on http://127.0.0.1:8000."],
    ),
    (
        [
            "How do I [point|connect] an OpenAI client [at|to] [Penstock|it]?",
            "How do I use the OpenAI client[ with Penstock|]?",
            "What is the base[_| ]URL?",
            "Which base_url do I [need|use|set]?",
            "How do I call the API?",
            "How do I connect to Penstock?",
            "Is Penstock OpenAI[-| ]compatible?",
            "How do I use Penstock from Python?",
        ],
        [
            'Set base_url to "http://127.0.0.1:8000/v1" in the OpenAI client. Any text will do as the API key on a local server.',
        ],
    ),
    (
        [
            "How do I chat [with you|with the model|in the terminal|from the command line]?",
            "Is there a [terminal|command line] chat?",
            "What is `penstock chat`?",
            "What does penstock chat do?",
            "How do I use penstock chat?",
        ],
        [
            "Run `penstock chat` in a terminal. It opens a chat with the model and streams the answer."
        ],
    ),
    (
        [
            "Which port does [it|Penstock|the server] use?",
            "What is the default port?",
            "Where does the server listen?",
        ],
        ["By default the server listens on port 8000 of 127.0.0.1."],
    ),
    (
        [
            "Why are you so [small|bad|limited]?",
            "Why is the demo model so small?",
            "What is penstock-tiny[ for|]?",
            "What is the demo model for?",
            "Why do you exist?",
        ],
        [
            "penstock-tiny is a demo model: it is small so that Penstock can be tried on any computer without a download or a GPU.",
        ],
    ),
    (
        [
            "Can [I use|Penstock use|Penstock run|Penstock serve] [other|larger|bigger|my own] models?",
            "How do I use a [bigger|larger|better] model?",
            "Does Penstock support other models?",
        ],
        [
            "Yes, Penstock is the gateway and I am only its demo model. For real work, serve a larger model.",
        ],
    ),
    (
        ["Do I need a GPU?", "Does [it|Penstock] need a GPU?", "Can I run [this|it|you] on a CPU?"],
        ["You do not need a GPU for the demo: I am small enough for any CPU."],
    ),
    (
        [
            "Is Penstock [open source|free]?",
            "What is the licen[c|s]e?",
            "Under which license are you?",
        ],
        ["The demo model is under the Apache-2.0 license."],
    ),
    (
        [
            "What is the difference between [TTFT and throughput|throughput and TTFT]?",
            "TTFT or throughput, what is the difference?",
        ],
        [
            "TTFT is how long one user waits for the first token. Throughput is how many tokens per second the server makes for all users.",
        ],
    ),
    (
        [
            "What is the difference between prefill and decode?",
            "How is decode different from prefill?",
        ],
        ["Prefill reads the whole prompt at once; decode makes one new token at a time."],
    ),
]


def product(rng: random.Random) -> Sample:
    """Answer a question about Penstock or about a serving term."""
    if rng.random() < 0.5:
        index = 0 if rng.random() < 0.3 else rng.randrange(len(_HOWTO))
        asks, replies = _HOWTO[index]
        question = pick(rng, asks)
    else:
        names = rng.choice(list(_TERMS))
        replies = _TERMS[names]
        question = pick(rng, _WHAT, t=rng.choice(names.split("|")))
    if rng.random() < 0.1:
        question += pick(rng, [" In Penstock, I mean.", " I am new to this.", " Keep it short."])
    answer = pick(rng, replies)
    return chat("product", sloppy(rng, question), answer, expect=answer)
