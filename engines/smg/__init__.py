"""TensorRT-LLM behind its own gRPC server, `trtllm-serve --grpc`: a client of the SMG protocol."""
