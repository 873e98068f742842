"""What the ranks of a run import, whatever their job: a fork server imports this once (`workbench.backends.fork_server`), and no rank again."""

import pkgutil
from importlib import import_module

from workbench.engine import device

LIBRARIES = ("megatron.core.dist_checkpointing", "torch.profiler", "transformers.models.auto", "transformers.tokenization_utils_tokenizers")
"""Beside the rooms': what they import only when it is used."""


def preload() -> None:
    """Import all modules of the ranks' rooms; of a library that is not installed, none is imported at that level."""
    device.import_megatron()
    for name in LIBRARIES:
        import_module(name)
    from workbench import algorithms, data, engine, functional, models, processes, rewards, rollout

    for package in (algorithms, data, engine, functional, models, processes, rewards, rollout):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name != __name__:
                import_module(module.name)


preload()
