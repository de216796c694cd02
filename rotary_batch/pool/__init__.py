"""Engines behind `core.EnginePool`: where they run, what happens when one dies."""
