"""Attention over the rows of one step: what there is to compute, and one module for each way to compute it."""
