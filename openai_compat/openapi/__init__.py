"""The API described as OpenAPI 3.1: pure data, one file per dialect, from the readers' own sets."""
