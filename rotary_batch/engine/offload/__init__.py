"""Expert weights on their way: tiers that hold them, the ring of slots, the prefetcher, and what decides."""
