"""Engines that other servers run, over OpenAI's text completions with token ids."""
