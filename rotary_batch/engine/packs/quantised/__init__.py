"""Checkpoints that are quantised already: GPTQ, AWQ, compressed-tensors, FP8, MXFP4.  Their codes and scales are kept.

The tensors of a module say whether it is quantised, the config says how.  Patterns of a config (`ignore`, `targets`,
`dynamic`) are never matched: a regular expression from a stranger's file can run for hours.
"""
