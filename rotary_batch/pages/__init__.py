"""The Markdown tree: what a page says, how it is written, and what keeps it true."""
