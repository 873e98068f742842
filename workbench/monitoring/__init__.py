"""What in a run should worry its owner: alarms of its numbers, hangs of its ranks, diagnostics of a reward model's scores."""
