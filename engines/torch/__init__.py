"""The reference engine: transformers' own modelling code over our KV blocks, on CPU and CUDA."""
