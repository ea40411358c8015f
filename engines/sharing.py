"""Where in a cache the blocks of a request are: who may find which of them. Pure."""

from engines.api import GenerationRequest
from kvcache.naming import Turn, has_turns, within


def place_of(
    namespace: bytes, request: GenerationRequest, block_size: int
) -> tuple[bytes, Turn | None]:
    """The namespace that a request's prompt begins in, and where it turns into its own.

    What is shared is whole blocks of the prompt's beginning, and never anything that is generated.
    """
    own = within(namespace, salt=request.cache_salt, adapter=request.adapter)
    shared = request.shared
    if shared is None or not has_turns(namespace):
        return own, None
    blocks = min(shared.tokens, len(request.prompt)) // block_size
    if blocks < 1:
        return own, None
    return within(namespace, salt=shared.salt, adapter=request.adapter), Turn(blocks, own)
