"""Failures on a real SLURM cluster of this machine's own: the cluster, the scenarios, the table."""
