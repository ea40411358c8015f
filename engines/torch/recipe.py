"""How hidden states become one vector, as a model directory says in sentence-transformers' files.

modules.json lists the steps after the transformer: pooling, dense layers, normalisation. Without
it a family's default holds (families.py, encoders.py). What cannot be done as written is refused
by name: a vector pooled in another way is a vector of another model.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from engines.errors import ModelRejected
from engines.text.model_files import read_list, read_object

NOT_FINITE = "the model produced a vector that is not finite"

MODULES = "modules.json"
_SETTINGS = "sentence_{}_config.json"
_SETTINGS_OF = ("bert", "roberta", "distilbert", "camembert", "xlm-roberta", "electra")
_ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid")


class Pooling(StrEnum):
    """Which rows of a text make its vector."""

    CLS = "cls"  # the first
    MEAN = "mean"
    LAST = "last"


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear layer on the pooled vector; its weights lie in `folder`."""

    folder: Path
    inputs: int
    outputs: int
    bias: bool
    activation: str  # a class of torch.nn


@dataclass(frozen=True, slots=True)
class Recipe:
    """From the rows of a text to its vector, in order."""

    pooling: Pooling
    dense: tuple[Dense, ...] = ()
    normalise: bool = True
    max_tokens: int | None = None  # of one text, where less than the model could take
    declared: bool = False  # by the directory: it was published to make vectors

    def size(self, hidden: int) -> int:
        """Numbers in a vector."""
        return self.dense[-1].outputs if self.dense else hidden


def read_recipe(path: Path, default: Recipe) -> Recipe:
    """The recipe of a directory, or the default. Raises ModelRejected naming what is not done."""
    if not (path / MODULES).exists():
        return default
    recipe = Recipe(default.pooling, normalise=False, declared=True)
    for place, module in enumerate(read_list(path / MODULES)):
        kind, folder = _module(path, module)
        match kind, place:
            case ("Transformer", 0):
                recipe = replace(recipe, max_tokens=_max_tokens(folder))
            case ("Pooling", 1):
                recipe = replace(recipe, pooling=_pooling(folder / "config.json"))
            case ("Dense", _) if place > 1 and not recipe.normalise:
                recipe = replace(recipe, dense=(*recipe.dense, _dense(folder)))
            case ("Normalize", _) if place > 1:
                recipe = replace(recipe, normalise=True)
            case _:
                raise ModelRejected(
                    f"{path / MODULES}: module {place} is {kind!r}; supported, in this order:"
                    " Transformer, Pooling, any Dense, Normalize"
                )
    return recipe


def _module(path: Path, module: object) -> tuple[str, Path]:
    """The kind of a module and its folder, which is the directory itself or one in it."""
    given = module if isinstance(module, dict) else {}
    kind, folder = given.get("type"), given.get("path", "")
    # A folder elsewhere could be any on the disk.
    if not isinstance(kind, str) or not isinstance(folder, str) or Path(folder).name != folder:
        raise ModelRejected(f"{path / MODULES}: every module needs a type and a plain folder name")
    kind = kind.rpartition(".")[2]
    if kind == "Transformer" and folder:
        raise ModelRejected(
            f"{path / MODULES}: the transformer must lie beside it, not in {folder}"
        )
    return kind, path / folder


def _max_tokens(path: Path) -> int | None:
    """`max_seq_length` of the first settings file there is."""
    for name in _SETTINGS_OF:
        file = path / _SETTINGS.format(name)
        if file.exists():
            length = read_object(file, required=True).get("max_seq_length")
            if length is not None and (type(length) is not int or length < 1):
                raise ModelRejected(f"{file}: max_seq_length must be a positive integer or null")
            return length
    return None


def _pooling(file: Path) -> Pooling:
    """The one way of pooling that a configuration names, in its older or its newer spelling."""
    config = read_object(file, required=True)
    if config.get("include_prompt") is False:
        raise ModelRejected(f"{file}: include_prompt false is not supported")
    named = config.get("pooling_mode")
    modes = [named] if isinstance(named, str) else named
    if modes is None:
        modes = _flagged(config)
    names = {"cls": Pooling.CLS, "mean": Pooling.MEAN, "lasttoken": Pooling.LAST}
    if not isinstance(modes, list) or len(modes) != 1 or modes[0] not in names:
        raise ModelRejected(
            f"{file}: pooling {modes!r} is not supported; supported: one of {[*names]}"
        )
    return names[modes[0]]


def _flagged(config: dict[str, object]) -> list[str]:
    """The modes whose flag is set; the mean is on where nothing is said of it."""
    flags = {"pooling_mode_mean_tokens": True} | config
    modes = [name for name, on in flags.items() if name.startswith("pooling_mode_") and on is True]
    return [
        name.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
        for name in modes
    ]


def _dense(folder: Path) -> Dense:
    file = folder / "config.json"
    config = read_object(file, required=True)
    sizes = config.get("in_features"), config.get("out_features")
    activation = str(config.get("activation_function", "")).rpartition(".")[2]
    if activation not in _ACTIVATIONS:
        raise ModelRejected(
            f"{file}: activation {activation!r} is not supported;"
            f" supported: {', '.join(_ACTIVATIONS)}"
        )
    if not all(type(size) is int and size > 0 for size in sizes):
        raise ModelRejected(f"{file}: in_features and out_features must be positive integers")
    if not (folder / "model.safetensors").exists():
        raise ModelRejected(f"no model.safetensors in {folder}: only safetensors are read")
    inputs, outputs = sizes
    return Dense(
        folder, int(str(inputs)), int(str(outputs)), config.get("bias") is not False, activation
    )
