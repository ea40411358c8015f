"""CPU cost of the dialect: lowering one chat request, and one SSE frame of one token.

python -m benchmarks.frames
"""

import statistics
import time
from collections.abc import Callable

import msgspec

from engines.api import Capability, EngineInfo, TokenEvent
from engines.bundled import penstock_tiny
from gateway.model_directory import read_text_side
from openai_compat.body import parse_body
from openai_compat.chat.lower import lower_chat
from openai_compat.responses.lower import lower_response
from openai_compat.responses.stored import Past
from openai_compat.served import CallContext, ServedModel

REPEATS = 7


def _model() -> ServedModel:
    text = read_text_side(penstock_tiny())
    info = EngineInfo(
        "penstock-tiny", 2048, text.tokenizer.vocab_size, 32, 1000, 64, frozenset(Capability)
    )
    return text.served_as(("penstock-tiny",), info, frozenset())


def _best(work: Callable[[], int]) -> float:
    """Median over repeats of microseconds per unit; `work` returns how many units it did."""
    times = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        units = work()
        times.append((time.perf_counter() - begun) / units * 1e6)
    return statistics.median(times)


def measure() -> dict[str, float]:
    """Microseconds per request lowered, and per one-token frame rendered."""
    model = _model()
    text = "Water runs through the gate and turns the wheel, slowly at first, then fast. "
    messages = [{"role": "user", "content": text * 3} for _ in range(4)]
    raw = msgspec.json.encode({"model": model.name, "messages": messages, "stream": True})
    tokens = model.tokenizer.encode(text * 60, special=False)
    call = CallContext("bench", 0, 1, b"")

    def lowering() -> int:
        for _ in range(50):
            lower_chat(parse_body(raw), model, call)
        return 50

    def rendering() -> int:
        renderer = lower_chat(parse_body(raw), model, call).renderer
        renderer.begin()
        for token in tokens:
            renderer.feed(0, TokenEvent(0, [token], 0))
        return len(tokens)

    def rendering_a_response() -> int:
        body = {"model": model.name, "input": text, "stream": True}
        renderer = lower_response(body, model, call, Past(), keeps=True).renderer
        renderer.begin()
        for token in tokens:
            renderer.feed(0, TokenEvent(0, [token], 0))
        return len(tokens)

    return {
        f"lowering_us_per_{len(raw)}_byte_request": _best(lowering),
        "frame_us_per_token": _best(rendering),
        "response_frame_us_per_token": _best(rendering_a_response),
    }


def main() -> None:
    for name, value in measure().items():
        print(f"{name:40s} {value:9.2f}")


if __name__ == "__main__":
    main()
