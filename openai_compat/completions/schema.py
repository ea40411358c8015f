"""The fields and prompts of a text completion: what is known, what is neutral, what is refused."""

from openai_compat.context import TRUNCATION_FIELDS, check_length
from openai_compat.conversation.formats import FORMAT_FIELDS
from openai_compat.engine_extras import EXTRAS_FIELDS
from openai_compat.fields import Fields, wrong
from openai_compat.guides import check_tokens
from openai_compat.options import OPTION_FIELDS
from openai_compat.sampling import SAMPLING_FIELDS
from openai_compat.served import ServedModel
from openai_compat.unsupported import ENGINE_EXTENSIONS, Neutral

MAX_PROMPTS = 64

ACTED_ON = (
    SAMPLING_FIELDS
    | OPTION_FIELDS
    | TRUNCATION_FIELDS
    | EXTRAS_FIELDS
    | FORMAT_FIELDS
    | {
        "add_special_tokens",
        "best_of",
        "cache_salt",
        "echo",
        "logprobs",
        "max_tokens",
        "prompt",
    }
)

UNSUPPORTED: Neutral = {
    **ENGINE_EXTENSIONS,
    "suffix": ("",),
    "thinking_token_budget": (-1,),  # a text completion has no reasoning part to find
}

KNOWN = ACTED_ON | UNSUPPORTED.keys()

Prompt = str | list[int]  # text, or token ids as they are


def read_prompts(fields: Fields, model: ServedModel, *, truncated: bool) -> list[Prompt]:
    """The prompts of any of OpenAI's four forms; `truncated` ones may be too long.

    Raises `RequestRejected` naming the place, such as `prompt[1][7]`.
    """
    given = fields.raw("prompt")
    param = fields.param("prompt")
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list) or not given:
        raise wrong(param, "a string, token ids, or an array of either", given)
    if not isinstance(given[0], (str, list)):
        return [_tokens(given, model, param, truncated=truncated)]
    if len(given) > MAX_PROMPTS:
        raise wrong(param, f"an array of at most {MAX_PROMPTS} prompts", given)
    prompts: list[Prompt] = []
    for place, value in enumerate(given):
        if type(value) is not type(given[0]):
            raise wrong(f"{param}[{place}]", "a prompt of the same kind as the first", value)
        where = f"{param}[{place}]"
        if isinstance(value, list):
            value = _tokens(value, model, where, truncated=truncated)  # noqa: PLW2901 - as it is meant
        prompts.append(value)
    return prompts


def _tokens(values: list[object], model: ServedModel, param: str, *, truncated: bool) -> list[int]:
    if not truncated:
        check_length(len(values), model, param)  # before a million ids are looked at one by one
    return check_tokens(values, model.info.vocab_size, param)
