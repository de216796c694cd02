"""What authors wrote about their code: each markup read into the same blocks, and these written as safe Markdown."""
