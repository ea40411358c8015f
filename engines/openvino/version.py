"""Which OpenVINO this engine is for, and whether it is here: told without importing it."""

from importlib.metadata import PackageNotFoundError, version

VERSION = "2026.4"  # its paged attention is private, and changes between minor versions

# Tokens in a block: what the CPU plugin lays its caches out by, whatever is asked for.
BLOCK_SIZE = 32

# Data types of weights that no other engine has; keys and values are bfloat16 beside them.
QUANTISED = ("int8", "int4")


def why_not_here() -> str | None:
    """Why this process cannot use OpenVINO, in words for an operator; None where it can."""
    try:
        found = version("openvino")
    except PackageNotFoundError:
        return "openvino is not installed (penstock[openvino])"
    if not found.startswith(f"{VERSION}."):
        return (
            f"OpenVINO {found} is installed; this engine is for {VERSION}.x: its paged attention is"
            " private and changes between versions"
        )
    return None
