"""The demo's own preference pairs: see README.md in this folder."""
