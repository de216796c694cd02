"""The queue and everything that must survive a kill: one SQLite file, one writer."""
