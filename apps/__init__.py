"""The applications: each a folder with its runner, none of which knows another."""
