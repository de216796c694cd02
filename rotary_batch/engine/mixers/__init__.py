"""What mixes the tokens of a sequence in one layer: attention, in its variants."""
