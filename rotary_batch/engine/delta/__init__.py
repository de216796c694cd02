"""Gated DeltaNet (arXiv 2412.06464): linear attention whose past is a state of fixed size instead of a KV cache."""
