"""A strict stand-in for `tensorrt_llm`: it has the names of one version's table, and no others."""
