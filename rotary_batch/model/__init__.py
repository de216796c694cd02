"""What a checkpoint is, without torch: shapes, tokens, the manifest of a pack."""
