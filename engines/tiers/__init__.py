"""Slower tiers of a stepped engine's KV cache: what moves in a step, and the files it is in."""
