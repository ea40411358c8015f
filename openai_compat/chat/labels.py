"""Fields that label a chat or hint at it: checked, told where OpenAI tells them, and without effect
on the text.
"""

from dataclasses import dataclass

from openai_compat.fields import Fields, wrong
from openai_compat.options import check_metadata

LABEL_FIELDS = frozenset(
    {
        "metadata",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
    }
)
TIERS = ("auto", "default", "flex", "scale", "priority", "fast")
RETENTIONS = ("in_memory", "24h")
MAX_HINT_CHARS = 512
MAX_PREDICTION_PARTS = 256


@dataclass(frozen=True, slots=True)
class Labels:
    """What the answer says of them."""

    tier: str | None = None  # the one really used, when the client asked for any
    predicted: bool = False  # usage tells how much of a prediction was used


NO_LABELS = Labels()


def read_labels(fields: Fields) -> Labels:
    """Raises `RequestRejected` naming the field at fault."""
    check_metadata(fields)
    fields.text("prompt_cache_key", MAX_HINT_CHARS)
    fields.text("safety_identifier", MAX_HINT_CHARS)
    fields.one_of("prompt_cache_retention", RETENTIONS)
    tier = fields.one_of("service_tier", TIERS)
    return Labels(tier and "default", predicted=_reads_prediction(fields))


def _reads_prediction(fields: Fields) -> bool:
    """Whether there is one, of the documented form. No engine here decodes ahead by it."""
    prediction = fields.nested("prediction")
    if prediction is None:
        return False
    if prediction.one_of("type", ("content",)) is None:
        raise wrong(prediction.param("type"), '"content"', None)
    content = prediction.raw("content")
    if isinstance(content, str):
        return True
    parts = prediction.items("content", MAX_PREDICTION_PARTS)
    if parts is None:
        raise wrong(prediction.param("content"), "a string or an array of text parts", None)
    for place, value in enumerate(parts):
        where = f"{prediction.param('content')}[{place}]"
        if not isinstance(value, dict):
            raise wrong(where, "an object", value)
        part = Fields(value, where)
        if part.one_of("type", ("text",)) is None or part.text("text") is None:
            raise wrong(where, "a text part", value)
    return True
