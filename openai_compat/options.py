"""The fields around generation, shared by both routes: n, stop strings, streaming, identity."""

from dataclasses import dataclass

from openai_compat.errors import RequestRejected
from openai_compat.fields import Fields, wrong
from openai_compat.showing import AS_USUAL, SHOWING_FIELDS, Showing, read_showing

MAX_N = 8
MAX_STOPS = 4
MAX_STOP_BYTES = 256
MAX_PRIORITY = 100
_MAX_USER_CHARS = 512
_MAX_METADATA = (16, 64, 512)  # entries, characters of a key, characters of a value

OPTION_FIELDS = SHOWING_FIELDS | frozenset(
    {"model", "n", "priority", "session_id", "stop", "stream", "stream_options", "user"}
)
_STREAM_OPTIONS = ("include_usage", "include_obfuscation", "continuous_usage_stats")


@dataclass(frozen=True, slots=True)
class Options:
    """How a call is answered, apart from what is sampled."""

    n: int
    stops: tuple[str, ...]
    stream: bool
    include_usage: bool
    priority: int
    ignored: tuple[str, ...]  # unknown names inside of stream_options
    showing: Showing = AS_USUAL
    obfuscation: bool = False  # frames are padded against traffic analysis
    running_usage: bool = False  # each frame tells the usage so far


def read_options(fields: Fields) -> Options:
    """Raises `RequestRejected` naming the field at fault."""
    fields.text("user", _MAX_USER_CHARS)
    fields.text("session_id", _MAX_USER_CHARS)
    n = fields.integer("n", 1, MAX_N)
    stream_options = fields.nested("stream_options") or Fields({})
    return Options(
        n=1 if n is None else n,
        stops=_stops(fields),
        stream=fields.flag("stream"),
        include_usage=stream_options.flag("include_usage"),
        priority=fields.integer("priority", -MAX_PRIORITY, MAX_PRIORITY) or 0,
        ignored=stream_options.unknown(_STREAM_OPTIONS),
        showing=read_showing(fields),
        obfuscation=stream_options.flag("include_obfuscation"),
        running_usage=stream_options.flag("continuous_usage_stats"),
    )


def check_metadata(fields: Fields) -> None:
    """Labels for the client's own use: bounded, and without effect on the answer."""
    entries, key_chars, value_chars = _MAX_METADATA
    for key, value in (fields.entries("metadata", entries) or {}).items():
        if len(key) > key_chars or not isinstance(value, str) or len(value) > value_chars:
            wanted = f"keys up to {key_chars} and strings up to {value_chars} characters"
            raise wrong(fields.param("metadata"), wanted, value)


def refuse_streamed_prompt(fields: Fields, options: Options) -> None:
    """Raises `RequestRejected` where `prompt_logprobs` is to be streamed, as vLLM does."""
    if options.stream and fields.raw("prompt_logprobs") is not None:
        param = fields.param("prompt_logprobs")
        raise RequestRejected(f"'{param}' is told without 'stream' only.", param=param)


def requested_model(body: dict[str, object]) -> str:
    """The model named by a request. Raises `RequestRejected` when there is none."""
    name = body.get("model")
    if not isinstance(name, str) or not name:
        raise wrong("model", "the name of a served model", name)
    return name


def _stops(fields: Fields) -> tuple[str, ...]:
    given = fields.raw("stop")
    stops = [given] if isinstance(given, str) else given
    if stops is None:
        return ()
    param = fields.param("stop")
    if not isinstance(stops, list) or len(stops) > MAX_STOPS:
        raise wrong(param, f"a string or an array of at most {MAX_STOPS} strings", stops)
    for place, stop in enumerate(stops):
        if not isinstance(stop, str) or not stop:
            raise wrong(f"{param}[{place}]", "a string that is not empty", stop)
        if len(stop.encode()) > MAX_STOP_BYTES:
            raise RequestRejected(
                f"'{param}[{place}]' has {len(stop.encode())} bytes; the limit is"
                f" {MAX_STOP_BYTES}.",
                param=f"{param}[{place}]",
            )
    return tuple(stops)
