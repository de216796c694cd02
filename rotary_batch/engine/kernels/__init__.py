"""Compiled kernels for CPUs and Triton kernels for CUDA; where there are none, torch's operators do the same."""
