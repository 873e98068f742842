"""The run directory, the contract between a run and whoever looks at it: status, events, requests, rollout files, heartbeats."""
