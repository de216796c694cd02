"""Builds the embedded demonstration model: corpus, tokenizer, training, export.  Not part of the wheel."""
