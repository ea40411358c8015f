"""Options of the tests that need hardware."""


def pytest_addoption(parser):
    parser.addoption("--trtllm-config", default=None, help="the YAML of a TensorRT-LLM engine")
