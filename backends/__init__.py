"""Where a run runs: one file a backend."""
