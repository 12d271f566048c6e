"""Learners that turn demonstrations into a policy, each an object in the style of stable-baselines3."""
