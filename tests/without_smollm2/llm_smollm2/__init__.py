"""What a program finds that a test starts: no model, so that the embedded one is the default."""
