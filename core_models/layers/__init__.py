"""Layers and networks used by several families of models."""
