"""The HTTP side: bodies in, answers and token streams out."""
