"""What every part of the engine stands on: counters, buffers, memory, devices."""
