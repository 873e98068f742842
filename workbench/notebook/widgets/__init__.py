"""The widgets of a notebook, one file each."""
