"""The `reasoning` field of a response request: how much the model thinks."""

from openai_compat.conversation.ask import Thinking
from openai_compat.conversation.thinking import EFFORTS, check_thinking
from openai_compat.fields import Fields
from openai_compat.served import ServedModel
from openai_compat.unsupported import Neutral, refuse_unsupported

# "auto" asks for the best summary there is. There is none: the reasoning is given in full.
_NEUTRAL: Neutral = {
    "context": ("auto",),
    "generate_summary": ("auto",),
    "mode": ("standard",),
    "summary": ("auto",),
}
_KNOWN = frozenset({"effort", *_NEUTRAL})


def read_reasoning(fields: Fields, model: ServedModel) -> tuple[Thinking, tuple[str, ...]]:
    """How much to think, and the unknown names. Raises `RequestRejected` for what this model
    cannot be told.
    """
    given = fields.nested("reasoning")
    if given is None:
        return Thinking(), ()
    refuse_unsupported(given, _NEUTRAL)
    thinking = Thinking(effort=given.one_of("effort", EFFORTS))
    check_thinking(thinking, model, {"effort": given.param("effort")})
    return thinking, given.unknown(_KNOWN)
