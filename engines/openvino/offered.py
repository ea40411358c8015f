"""Which models the OpenVINO runner serves, told from config.json without importing OpenVINO."""

from pathlib import Path
from types import MappingProxyType

from engines.errors import ModelRejected
from engines.text.model_files import read_object
from engines.torch.families import BARE, FAMILIES
from engines.torch.recipe import MODULES

_SOFTCAPS = MappingProxyType({"gemma2": 50.0})  # a family's default, where config.json is silent


def check_family(path: Path) -> None:
    """Refuse what cannot be computed here, as far as config.json tells. Raises ModelRejected."""
    config = read_object(path / "config.json", required=True)
    family = str(config.get("model_type"))
    if config.get("attn_logit_softcapping", _SOFTCAPS.get(family)) is not None:
        raise ModelRejected(
            f"{path}: the openvino engine has no soft-capped attention (attn_logit_softcapping);"
            " use --engine torch"
        )
    bare = family not in FAMILIES or config.get("architectures") == [BARE[family]]
    if bare or (path / MODULES).exists():
        raise ModelRejected(
            f"{path}: the openvino engine serves models that generate, of the torch engine's"
            f" families; {family} is for --engine torch, if any"
        )
