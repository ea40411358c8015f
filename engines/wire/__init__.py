"""penstock.engine.v1: what gateways and workers say to each other, and how it is written."""
