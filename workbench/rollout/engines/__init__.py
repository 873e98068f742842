"""One file a rollout engine: a way to sample answers from the policy. `build` makes one; see `workbench.rollout.base`."""
