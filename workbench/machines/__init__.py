"""What there is to run on: nodes, queues, the processes of live runs, and what this machine has installed."""
