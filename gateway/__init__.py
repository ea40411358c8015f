"""The process: HTTP, configuration, admission, metrics, lifecycle and the command line."""

__version__ = "0.1.0"
