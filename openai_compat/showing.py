"""How generated tokens are shown: what is spelled out, what ends a text, whether ids are told."""

from dataclasses import dataclass

from openai_compat.fields import Fields

SHOWING_FIELDS = frozenset(
    {
        "include_stop_str_in_output",
        "no_stop_trim",
        "return_token_ids",
        "return_tokens_as_token_ids",
        "skip_special_tokens",
        "spaces_between_special_tokens",
    }
)


@dataclass(frozen=True, slots=True)
class Showing:
    """Neutral values: text without special tokens, up to what ended it."""

    keep_stop: bool = False  # the stop string or token is the end of the text
    specials: bool = False  # special tokens are spelled out
    token_ids: bool = False  # of the prompt and of each piece, beside the text
    tokens_as_ids: bool = False  # log-probabilities name tokens by their ids


AS_USUAL = Showing()


def read_showing(fields: Fields) -> Showing:
    """Raises `RequestRejected` naming the field at fault.

    `no_stop_trim` is SGLang's name for `include_stop_str_in_output`. Nothing is ever put between
    special tokens, which is what both values of `spaces_between_special_tokens` come to wherever a
    tokenizer.json is read.
    """
    fields.flag("spaces_between_special_tokens")
    kept = fields.flag("no_stop_trim")
    return Showing(
        keep_stop=fields.flag("include_stop_str_in_output") or kept,
        specials=not fields.flag("skip_special_tokens", default=True),
        token_ids=fields.flag("return_token_ids"),
        tokens_as_ids=fields.flag("return_tokens_as_token_ids"),
    )
