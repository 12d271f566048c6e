"""Speed, as ratios measured in one run. A room of its own: timing never decides a test."""
