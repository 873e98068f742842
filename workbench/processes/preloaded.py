"""What the ranks of a run import, whatever their job: a fork server imports this once (`workbench.backends.fork_server`)."""

from workbench.engine import device

device.import_megatron()
from workbench.processes import online, rank, server, worker  # noqa: E402
from workbench.processes.kinds import train  # noqa: E402

__all__ = ["online", "rank", "server", "train", "worker"]
