"""Tokens in, tokens out: the port, the scheduler, the drivers and the runners."""
