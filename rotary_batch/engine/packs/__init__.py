"""Checkpoints read, packs written."""
