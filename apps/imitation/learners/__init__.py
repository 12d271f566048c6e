"""The learners, one module each."""
