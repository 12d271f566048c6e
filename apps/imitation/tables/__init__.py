"""The tables of the papers: GAIL, InfoGAIL, and what they are computed from."""
