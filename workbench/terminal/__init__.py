"""What the command line draws: a run's progress, its profile, the cluster."""
