"""This engine beside TRL: the same weights, adapters, rows, batch and precision, in turn on the same machine."""
