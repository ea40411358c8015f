"""Text tools around an engine, pure: tokenizer, chat template, detokenizer, stop strings."""
