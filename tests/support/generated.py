"""Requests generated from our own openapi.json by Schemathesis, sent to a real server and judged.

`python -m tests.support.generated 20000` prints the counts; a sample of it is in the test suite.
"""

import copy
import sys
from collections import Counter
from dataclasses import dataclass, field
from math import ceil
from time import monotonic

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode, checks
from schemathesis.core.failures import Failure, FailureGroup

from openai_compat.openapi.document import document
from tests.support.command import MODEL, served

GETS = 0.05  # of each, where it takes something, beside the others
# Within what the small server can do, so that more than refusals are seen.
AT_MOST = {
    "max_tokens": 64,
    "max_completion_tokens": 64,
    "max_output_tokens": 64,
    "min_tokens": 4,
    "best_of": 2,
    "n": 4,
}
# Short answers; and no line per request, for nobody reads them here.
SERVER = ("--engine", "ledger", "--max-context", "128", "--log-level", "warning")
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
]


@dataclass
class Tally:
    """What was sent and what came back."""

    statuses: Counter = field(default_factory=Counter)
    routes: Counter = field(default_factory=Counter)
    bodies: set = field(default_factory=set)
    wrong: list = field(default_factory=list)
    seconds: float = 0.0

    @property
    def sent(self):
        return sum(self.statuses.values())

    def __str__(self):
        statuses = ", ".join(f"{n} x {status}" for status, n in sorted(self.statuses.items()))
        routes = "\n".join(f"  {n:6}  {route}" for route, n in self.routes.most_common())
        return (
            f"{self.sent} requests ({len(self.bodies)} different) in {self.seconds:.0f} s:"
            f" {statuses}\n{routes}\n{len(self.wrong)} wrong answers"
        )


def run(base_url, count):
    """Send `count` requests, half of them against the schema. The Tally."""
    began, tally = monotonic(), Tally()
    with requests.Session() as session:
        for mode in GenerationMode:
            operations = _operations(mode)
            posts = [each for each in operations if "requestBody" in each.definition.raw]
            for operation in operations:
                share = 1 / len(posts) / 2 if operation in posts else GETS
                # What a GET takes is text, and there is no wrong text.
                if operation in posts or mode is GenerationMode.POSITIVE:
                    strategy = operation.as_strategy(generation_mode=mode)
                    _send(strategy, ceil(count * share), base_url, session, tally)
    tally.seconds = monotonic() - began
    return tally


def _operations(mode):
    """Of the document, with the model that is served wherever one is named.

    What is to be accepted stays within what this server can do; what is to be refused breaks the
    document's own bounds.
    """
    described = copy.deepcopy(document("0"))
    for schema in described["components"]["schemas"].values():
        if "model" in schema.get("required", ()) and "additionalProperties" not in schema:
            # Apart from the answers, which may share a part with it and are not bounded.
            fields = schema["properties"] = copy.deepcopy(schema["properties"])
            fields["model"] = {"const": MODEL}
            if mode is GenerationMode.POSITIVE:
                _bound(fields)
                for name in AT_MOST.keys() & fields.keys():
                    fields[name] = {**fields[name], "maximum": AT_MOST[name]}
    found = schemathesis.openapi.from_dict(described).get_all_operations()
    operations = [result.ok() for result in found]
    return [operation for operation in operations if not operation.definition.raw.get("x-endless")]


def _bound(schema):
    """Token ids that exist: the document cannot know the vocabulary."""
    if isinstance(schema, list):
        for item in schema:
            _bound(item)
    if isinstance(schema, dict):
        if schema.get("type") == "integer" and "maximum" not in schema:
            schema["maximum"] = 1000
        for item in schema.values():
            _bound(item)


def _send(strategy, count, base_url, session, tally):
    @seed(0)
    @given(case=strategy)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def send(case):
        response = case.call(base_url=base_url, session=session, timeout=60)
        tally.statuses[response.status_code] += 1
        tally.routes[f"{case.method} {case.path}"] += 1
        tally.bodies.add((case.method, case.path, repr(case.body), repr(case.path_parameters)))
        try:
            _judge(case, response)
        except (AssertionError, Failure, FailureGroup) as failure:
            tally.wrong.append(f"{case.method} {case.path} {case.body!r:.300}: {failure!s:.2000}")

    send()


def _judge(case, response):
    """Every refusal has its dialect's shape; Schemathesis holds the rest to the document."""
    if response.status_code >= 400 and case.path.startswith("/v1/messages"):
        refusal = response.json()
        assert set(refusal) == {"type", "error", "request_id"}
        assert isinstance(refusal["error"]["details"]["error_code"], str)
    elif response.status_code >= 400:
        error = response.json()["error"]
        assert set(response.json()) == {"error"}
        assert set(error) == {"message", "type", "param", "code"}
        assert isinstance(error["code"], str)
    assert response.headers["x-request-id"]
    # Too large is a refusal too, though not one that Schemathesis counts as one.
    to_be_refused = _within(case.body) and response.status_code != 413
    case.validate_response(response, checks=CHECKS if to_be_refused else CHECKS[:-1])


def _within(body):
    """Whether a body keeps to AT_MOST, which is ours and not the document's: more is not wrong."""
    given = body if isinstance(body, dict) else {}
    numbers = {name: given.get(name) for name in AT_MOST}
    return not any(type(n) is int and n > AT_MOST[name] for name, n in numbers.items())


def main():
    """Send so many requests as the first argument says, and print the counts."""
    with served(*SERVER) as server:
        tally = run(f"http://127.0.0.1:{server.port}", int(sys.argv[1]))
    for wrong in tally.wrong[:20]:
        print(wrong, "\n")  # noqa: T201
    print(tally)  # noqa: T201
    return bool(tally.wrong)


if __name__ == "__main__":
    sys.exit(main())
