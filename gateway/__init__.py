"""The process: HTTP, configuration, admission, metrics, lifecycle and the command line."""
