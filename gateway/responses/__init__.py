"""Responses that are kept: in the foreground, in the background, here or at another gateway."""
