"""Repository + job -> work items: what there is to ask, in which order, and what is already answered.

Knows units, prompts and keys; knows nothing of how an item is worked on or drawn on a page.
"""
