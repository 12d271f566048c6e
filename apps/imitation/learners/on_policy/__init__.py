"""Learners that act by the policy they learn: TRPO or PPO on a learnt reward."""
