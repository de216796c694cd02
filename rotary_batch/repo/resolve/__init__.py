"""What the names in a file mean: imports resolved to files, and names to the symbols that scope says."""
