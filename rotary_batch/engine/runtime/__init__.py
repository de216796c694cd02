"""What every part of the engine builds on: counters, buffers, memory, devices."""
