"""Repository + job -> work items: what is asked, in which order, and what is already answered."""
