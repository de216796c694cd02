"""Offloaded experts: the tiers that store them, the ring of slots, the prefetchers, and the policy."""
