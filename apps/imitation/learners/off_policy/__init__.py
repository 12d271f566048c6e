"""Learners that learn from what any policy did: SAC, and DAC on top of it."""
