"""Environments of our own, registered with gymnasium when this package is imported, and how any environment is made."""

import gymnasium

gymnasium.register("Circles-v0", entry_point="apps.imitation.environments.circles:Circles", max_episode_steps=100)
gymnasium.register("Driving-v0", entry_point="apps.imitation.environments.driving:Driving", max_episode_steps=100)
