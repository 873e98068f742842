"""What runs: the driver, the ranks of each kind of job, and the servers beside them."""

PRELOAD = ("workbench.processes.preloaded",)
"""What a fork server imports for ranks."""
WARM = (*PRELOAD, "workbench.processes.driver", "distributed")
"""What one imports that forks drivers too."""
