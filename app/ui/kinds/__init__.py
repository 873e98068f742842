"""The Run page of each kind of job: one file a kind, found by its name. A kind without a file has its log and its settings."""
