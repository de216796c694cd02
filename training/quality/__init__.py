"""What the embedded model is worth, measured on packages that it never saw: `python -m training.quality`."""
