"""Policies that learn from a few demonstrations: behavioural cloning, GAIL, InfoGAIL and what they compare with."""
