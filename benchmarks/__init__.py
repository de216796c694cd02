"""Speed and memory, measured; each script writes its figures beside itself."""
