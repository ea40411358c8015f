"""A digest of all that the KV contents of a compiled model depend on: equal only where they are."""

import platform

import openvino
from openvino import Core

from engines.openvino.loading import LoadedModel
from engines.tiers.fingerprint import fingerprint

_LAYOUT = "keys, values: layer, head, token, dim"  # of KvBlocks.save


def kv_fingerprint(loaded: LoadedModel) -> bytes:
    """16 bytes for what computes; the weights are in the digest of the graph."""
    return fingerprint(
        _LAYOUT,
        loaded.digest,
        openvino.__version__,
        f"{Core().get_property('CPU', 'FULL_DEVICE_NAME')} {platform.machine()}",
        loaded.precision.inference,
    )
