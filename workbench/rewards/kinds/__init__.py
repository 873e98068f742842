"""The kinds of reward, one file each, found by name: `workbench.rewards.base.Kind` says what a file has."""
