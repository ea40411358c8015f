"""Redis: what several gateways and workers know in common, and how to do without it."""
