"""The OpenAI dialect, pure: wire types, lowering to the engine port, and folding to frames."""
