"""Random schemas and tool sets asked of a live server, and every finished answer judged.

A case is a request body and what its answer must be. Nothing is retried and nothing left out: a
refusal, an error and an answer that is cut off are counted as what they are.
"""

import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass, field

import openai

from tests.support.random_forms import Forms, problem

CONCURRENCY = 24
MAX_TOKENS = 250
ASKS = (
    "Invent a person and answer in JSON.",
    "What is the weather in Rome?",
    "Add 3 and 4.",
    "Once upon a time",
    "Ring the bell and write a note.",
)
MODES = ("required", "named", "auto")


@dataclass(frozen=True)
class Case:
    """One request. `schema` is the content's, where it has one; `tools` the arguments', by name."""

    kind: str
    body: dict
    schema: dict | None = None
    tools: dict = field(default_factory=dict)
    must_call: bool = False


@dataclass
class Report:
    """Counts by kind and outcome, and the first answers that were wrong."""

    counts: Counter = field(default_factory=Counter)
    wrong: list = field(default_factory=list)

    def add(self, case, outcome, told=""):
        self.counts[case.kind, outcome] += 1
        if outcome not in ("valid", "length"):
            self.wrong.append((case.kind, outcome, told, json.dumps(case.body)[:1500]))

    def of(self, outcome):
        return sum(count for (_, told), count in self.counts.items() if told == outcome)

    def lines(self):
        for kind in sorted({kind for kind, _ in self.counts}):
            told = {told: n for (each, told), n in self.counts.items() if each == kind}
            valid, length = told.pop("valid", 0), told.pop("length", 0)
            yield (
                f"{kind:24s} finished {valid + sum(told.values()):5d}  valid {valid:5d}"
                f"  cut by length {length:4d}  other {told or 'none'}"
            )


def schema_cases(count, seed=0):
    """One schema each, every third as OpenAI's strict mode has them."""
    for number in range(count):
        rng = random.Random(f"schema-{seed}-{number}")
        strict = number % 3 == 0
        schema = Forms(rng).draw(strict=strict)
        told = {"name": "answer", "schema": schema, "strict": strict}
        form = {"type": "json_schema", "json_schema": told}
        body = _body(rng, number, response_format=form)
        yield Case("schema, strict" if strict else "schema", body, schema)


def tool_cases(count, seed=0):
    """One to four functions each: required, named or free but strict; every other with a form."""
    for number in range(count):
        rng = random.Random(f"tools-{seed}-{number}")
        mode = MODES[number % 3]
        names = [f"tool_{letter}" for letter in "abcd"[: rng.randint(1, 4)]]
        tools = {name: Forms(rng).draw(strict=mode == "auto") for name in names}
        listed = [
            {"type": "function", "function": {
                "name": name, "description": "Ring the bell.", "parameters": schema,
                "strict": mode == "auto",
            }}
            for name, schema in tools.items()
        ]  # fmt: skip
        fields = {"tools": listed, "parallel_tool_calls": rng.random() < 0.5}
        schema, kind = None, f"tools, {mode}"
        if mode == "named":
            name = rng.choice(names)
            fields["tool_choice"] = {"type": "function", "function": {"name": name}}
            tools = {name: tools[name]}
        elif mode == "required":
            fields["tool_choice"] = mode
        if number % 2:
            schema, kind = Forms(rng).draw(), f"{kind}, form"
            told = {"name": "answer", "schema": schema}
            fields["response_format"] = {"type": "json_schema", "json_schema": told}
        yield Case(kind, _body(rng, number, **fields), schema, tools, mode != "auto")


def _body(rng, number, **fields):
    messages = [{"role": "user", "content": rng.choice(ASKS)}]
    return {
        "messages": messages, "temperature": 1, "seed": number, "max_tokens": MAX_TOKENS, **fields,
    }  # fmt: skip


async def judged(url, model, cases, report=None):
    """Ask all cases of a server and judge the answers."""
    report = report or Report()
    pending = iter(cases)

    async def worker(client):
        for case in pending:
            report.add(case, *await _outcome(client, model, case))

    async with openai.AsyncOpenAI(base_url=url, api_key="x", max_retries=0, timeout=900) as client:
        await asyncio.gather(*(worker(client) for _ in range(CONCURRENCY)))
    return report


async def _outcome(client, model, case):
    try:
        answer = await client.chat.completions.create(model=model, **case.body)
    except openai.APIError as error:
        return "refused", str(error)
    choice = answer.choices[0]
    if choice.finish_reason == "length":
        return "length", ""
    wrong = _wrong(case, choice)
    return ("valid", "") if wrong is None else ("INVALID", wrong)


def _wrong(case, choice):
    """What is wrong with a finished answer; None where nothing is."""
    calls = choice.message.tool_calls or []
    told = _wrong_end(case, choice, calls) or _wrong_calls(case, calls)
    if told is None and case.schema is not None and not calls:
        content = choice.message.content
        found = problem(case.schema, content)
        told = found and f"content: {found}: {content[:200]}"
    return told


def _wrong_end(case, choice, calls):
    named = case.kind.startswith("tools, named")
    if choice.finish_reason != ("tool_calls" if calls and not named else "stop"):
        return f"it finished with {choice.finish_reason}"
    if case.must_call and not calls:
        return "it calls nothing"
    if len(calls) > 1 and (named or not case.body["parallel_tool_calls"]):
        return f"it has {len(calls)} calls"
    return None


def _wrong_calls(case, calls):
    for call in calls:
        if call.function.name not in case.tools:
            return "it calls another function"
        told = problem(case.tools[call.function.name], call.function.arguments)
        if told is not None:
            return f"arguments: {told}: {call.function.arguments[:200]}"
    return None
