"""/v1/completions: schema, lowering, and frames."""
