"""The adapter: low-rank changes to SmolLM2-135M-Instruct for the project's own jobs, trained on documented code."""
