"""Attention over the ragged rows of one step: what there is to do, and one module for each way to do it."""
