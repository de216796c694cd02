"""Reading code: files, symbols, references, chunks.  Nothing here trusts a repository."""
