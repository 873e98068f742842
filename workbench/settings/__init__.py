"""What an experiment is: the typed sections, the whole, how ranks share a model, and which models are served where."""

from workbench.settings.sections import (
    WEIGHTS,
    AlgorithmConfig,
    Checkpoint,
    CheckpointJob,
    CheckpointsJob,
    Data,
    Frozen,
    JobConfig,
    Lora,
    Model,
    Roles,
    Rollout,
    Steering,
    Validation,
    Watch,
)

__all__ = [
    "WEIGHTS",
    "AlgorithmConfig",
    "Checkpoint",
    "CheckpointJob",
    "CheckpointsJob",
    "Data",
    "Frozen",
    "JobConfig",
    "Lora",
    "Model",
    "Roles",
    "Rollout",
    "Steering",
    "Validation",
    "Watch",
]
