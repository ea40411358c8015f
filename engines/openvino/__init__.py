"""The OpenVINO runner: transformers' models, lowered once, stepped with our block tables on CPUs.

Importing `openvino` reports that to its maker where the package openvino_telemetry is installed. It
is made unfindable before: OpenVINO then falls back to a stub of its own.
"""

import sys

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # how imports are barred
