"""PixelDefend: detects and purifies adversarial images with an autoregressive density, and measures its worth."""
