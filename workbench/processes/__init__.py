"""What runs: the driver that owns a run, the workers that compute, the servers beside them, and what each does first."""
