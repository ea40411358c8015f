"""`penstock worker --engine trtllm` over the stand-in: arguments are the address and the YAML."""

import sys

import gateway.workers.process
from gateway.config import read_settings
from tests.support.trtllm_standin.package import installed

if __name__ == "__main__":
    flags = {"listen": sys.argv[1], "engine": "trtllm", "engine_config": sys.argv[2]}
    with installed(sys.argv[3]):
        sys.exit(gateway.workers.process.run(read_settings(flags), None, ""))
