"""/v1/chat/completions: schema, lowering, and frames."""
