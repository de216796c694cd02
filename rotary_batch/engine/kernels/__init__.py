"""Compiled kernels for processors and Triton kernels for CUDA; torch's operators stand in where there are none."""
