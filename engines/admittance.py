"""What every engine of ours refuses at once, before a request enters it."""

from engines.api import EngineInfo, GenerationRequest
from engines.embedding import check_purpose
from engines.errors import InvalidRequest, Unsupported
from engines.limits import Limits
from engines.needs import needed


def check_request(request: GenerationRequest, info: EngineInfo, limits: Limits) -> None:
    """Raise InvalidRequest for what can never run here. Looks at constants only."""
    check_purpose(request, info)
    limits.check(request)
    if request.adapter and request.adapter not in info.adapters:
        raise InvalidRequest(f"this engine has no adapter {request.adapter!r}", param="adapter")
    unknown = sorted(request.extras.keys() - info.extras)
    if unknown:
        raise Unsupported(f"this engine does not know {', '.join(unknown)}", param="extras")
    missing = sorted(needed(request.sampling) - info.capabilities)
    if missing:
        raise Unsupported(f"this engine does not support {', '.join(missing)}", param="sampling")
