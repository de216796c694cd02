"""The KV cache: contiguous ranges in device memory, windows onto host memory, prefixes that prompts share."""
