"""Whether a sentence about code is true to it, without another model: rules that reject only what is surely wrong."""
