"""The fields and inputs of an embedding request: known, neutral, refused."""

from openai_compat.fields import Fields, wrong
from openai_compat.texts import CUT_FIELDS
from openai_compat.unsupported import Neutral

MAX_INPUTS = 2048
MAX_USER_CHARS = 512

ACTED_ON = CUT_FIELDS | {
    "add_special_tokens",
    "dimensions",
    "encoding_format",
    "input",
    "model",
    "priority",
    "prompt_name",
    "user",
}

# Extensions of vLLM and others, whose neutral values ask for what is done anyway.
UNSUPPORTED: Neutral = {
    "cache_salt": (),
    "embed_dtype": ("float32",),
    "endianness": ("native", "little"),
    "input_type": (),
    "messages": (),
    "mm_processor_kwargs": ({},),
    "normalize": (),
    "padding": ("do_not_pad",),
    "task": (),
    "use_activation": (True,),
}

KNOWN = ACTED_ON | UNSUPPORTED.keys()

Input = str | list[int]


def read_inputs(fields: Fields) -> tuple[list[Input], list[str]]:
    """The inputs of any of OpenAI's four forms, and how refusals name each.

    Raises `RequestRejected` naming the place, such as `input[1]`. Token ids are not looked at yet.
    """
    given, param = fields.raw("input"), fields.param("input")
    if isinstance(given, str):
        return [given], [param]
    if not isinstance(given, list) or not given:
        raise wrong(param, "a string, token ids, or an array of either", given)
    if not isinstance(given[0], (str, list)):
        return [given], [param]
    if len(given) > MAX_INPUTS:
        raise wrong(param, f"an array of at most {MAX_INPUTS} inputs", given)
    params = [f"{param}[{place}]" for place in range(len(given))]
    for value, where in zip(given, params, strict=True):
        if type(value) is not type(given[0]):
            raise wrong(where, "an input of the same kind as the first", value)
    return given, params
