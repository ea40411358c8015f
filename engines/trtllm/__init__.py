"""The `Engine` port over `tensorrt_llm.LLM`; see docs/engines/tensorrt-llm.md."""
