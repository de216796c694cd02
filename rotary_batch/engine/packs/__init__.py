"""Reads checkpoints; writes, reads and checks packs."""
