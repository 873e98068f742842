"""Alignment Workbench: align language models from a browser, a notebook or a terminal, on one engine."""

__version__ = "0.1.0"
