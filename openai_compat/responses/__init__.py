"""/v1/responses: schema, items, lowering, the event stream, and what is stored."""
