"""One file an algorithm: its `Config`, its pure `loss`, its `train` loop. See `workbench/algorithms/dpo.py` for the shape."""
