"""Measure the machine, and an engine against its roofline."""
