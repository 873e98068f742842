"""Rollout engines: how answers are sampled from the policy."""
