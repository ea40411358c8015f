"""Which tokens' KV is where: blocks, sharing by content, and the names of blocks. Pure."""
