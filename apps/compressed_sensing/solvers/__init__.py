"""Solvers of convex recovery problems, a batch at a time, and their reference."""
