"""Kernels in Triton's language. Importing a module of this package needs Triton (extra `cuda`)."""
