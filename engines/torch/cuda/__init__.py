"""The torch runner at speed on CUDA: Triton kernels of ours, and decoding by CUDA graphs."""
