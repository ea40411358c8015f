"""/v1/messages: Anthropic's dialect over the same conversations, tokens and errors."""
