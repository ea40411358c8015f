"""The published stubs of the SMG protocol; imported only where an engine of it is made."""

import importlib
from dataclasses import dataclass
from typing import Any

from engines.errors import ModelRejected


@dataclass(frozen=True, slots=True)
class Stubs:
    """The two generated modules of `trtllm_service.proto`."""

    pb: Any  # messages
    rpc: Any  # TrtllmServiceStub


def load_stubs() -> Stubs:
    """Raises ModelRejected where the package `smg-grpc-proto` is missing or cannot be used."""
    try:
        package = importlib.import_module("smg_grpc_proto")
        return Stubs(package.trtllm_service_pb2, package.trtllm_service_pb2_grpc)
    except (ImportError, RuntimeError) as error:
        raise ModelRejected(
            f"the stubs of the SMG protocol cannot be imported ({error}): install penstock[smg]"
        ) from error
