"""The same weights on the same machine under the same cap: this engine, llama.cpp, transformers with accelerate."""
