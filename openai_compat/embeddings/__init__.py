"""/v1/embeddings: schema, lowering, and answer."""
