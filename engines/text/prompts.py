"""What an embedding model wants put before a text, from its sentence-transformers files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from engines.errors import ModelRejected
from engines.text.model_files import read_object

_FILE = "config_sentence_transformers.json"
_SETTINGS = "sentence_bert_config.json"


@dataclass(frozen=True, slots=True)
class Prompts:
    """Named texts to put before others, and whether all are put in lower case."""

    named: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    default: str | None = None  # the name of the one used where a request names none
    lower: bool = False

    @property
    def of_query(self) -> str | None:
        """The name of the prompt for what is searched with."""
        return "query" if "query" in self.named else None

    @property
    def of_document(self) -> str | None:
        """The name of the prompt for what is searched, as sentence-transformers looks it up."""
        return next((n for n in ("document", "passage", "corpus") if n in self.named), None)

    def applied(self, text: str, name: str | None = None) -> str:
        """The text as the model wants it. Raises KeyError for a name there is not."""
        chosen = self.default if name is None else name
        text = text if chosen is None else self.named[chosen] + text
        return text.lower() if self.lower else text


def read_prompts(path: Path) -> Prompts:
    """The prompts of a model directory; none where it names none. Raises ModelRejected."""
    config = read_object(path / _FILE, required=False)
    named = config.get("prompts") or {}
    if not isinstance(named, dict) or not all(isinstance(text, str) for text in named.values()):
        raise ModelRejected(f"{path / _FILE}: prompts must be an object of strings")
    default = config.get("default_prompt_name")
    if default is not None and (not isinstance(default, str) or default not in named):
        raise ModelRejected(f"{path / _FILE}: default_prompt_name is not among its prompts")
    lower = read_object(path / _SETTINGS, required=False).get("do_lower_case") is True
    return Prompts(MappingProxyType(named), default, lower)
