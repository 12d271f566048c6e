"""Signals recovered from few measurements: LASSO, generative priors, learned acquisition, and what they are worth."""
