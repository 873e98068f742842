"""One file a kind of job: its settings, and what a rank of it does."""
