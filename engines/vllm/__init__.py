"""The `Engine` port over `vllm`'s AsyncLLM; see docs/engines/vllm.md."""
