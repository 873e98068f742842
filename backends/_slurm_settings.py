"""The settings of the SLURM backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, Field, StringConstraints, model_validator

from workbench.backends import base

Word = Annotated[str, StringConstraints(pattern=r"^[^\s'\"\\#]+$")]
Line = Annotated[str, StringConstraints(pattern=r"^[^\r\n]+$")]
TIME = r"^(\d+|\d+:\d\d|\d+:\d\d:\d\d|\d+-\d+(:\d\d){0,2})$"


class Nodes(BaseModel, metaclass=base.Immutable, frozen=True, extra="forbid"):
    """Nodes of their own for a server, in the run's allocation. With a partition or resources of their own they make it a heterogeneous job."""

    nodes: int = Field(default=0, ge=0, le=4096, description="Nodes for this server alone; 0: it runs beside the policy.")
    partition: Word | None = Field(default=None, description="Their partition; empty: the policy's.")
    gpus_per_node: int | None = Field(default=None, ge=0, le=64, description="GPUs on each; empty: as the policy's nodes.")
    cpus_per_node: int | None = Field(default=None, ge=1, le=4096, description="CPUs on each; empty: as the policy's nodes.")
    memory: Word | None = Field(default=None, description="Memory of each; empty: as the policy's nodes.")
    constraint: Line | None = Field(default=None, description="Features they must have; empty: as the policy's nodes.")

    @property
    def own(self) -> dict[str, object]:
        return {key: value for key, value in self.model_dump(exclude={"nodes"}).items() if value is not None}


class Config(base.Config):
    """The options that sbatch is given. An empty field is left to dask-jobqueue's configuration, and after that to SLURM."""

    folded: ClassVar[dict[str, Sequence[str]]] = {
        "Job": ("qos", "constraint", "exclusive", "spare_nodes", "requeue", "warn_s", "directives"),
        "Environment of the nodes": ("modules", "prologue", "python", "interface", "container", "container_runtime", "container_mounts"),
        "Servers' nodes": ("critic", "reward", "reference"),
    }

    name: Literal["slurm"] = Field(default="slurm", description="A SLURM cluster.")
    partition: Word | None = Field(default=None, description="Partition.")
    account: Word | None = Field(default=None, description="Account that pays.")
    qos: Word | None = Field(default=None, description="Quality of service.")
    time_limit: str | None = Field(
        default=None, pattern=TIME, description="Longest time in the queue's words, as 4:00:00 or 2-12; a run is requeued after it."
    )
    gpus_per_node: int = Field(default=0, ge=0, le=64, description="GPUs on each node.")
    cpus_per_node: int | None = Field(default=None, ge=1, le=4096, description="CPUs on each node; empty: one a rank and thread.")
    memory: Word | None = Field(default=None, description="Memory of each node, as 64GB; empty: what the partition gives.")
    constraint: Line | None = Field(default=None, description="Features that the nodes must have, as h100&ib.")
    exclusive: bool = Field(default=False, description="No other job on the nodes.")
    spare_nodes: int = Field(default=0, ge=0, le=64, description="Nodes beside those that work: one takes over from a node that fails.")
    requeue: bool = Field(
        default=True, description="Queue the job again, to continue from its checkpoint, after the time limit, a preemption or a lost node."
    )
    warn_s: int = Field(
        default=120, ge=0, le=65535, description="How long before the time limit the run saves itself: a step and a checkpoint must fit."
    )
    directives: tuple[Line, ...] = Field(default=(), description="Further sbatch options, as --reservation=blue.")
    modules: tuple[Word, ...] = Field(default=(), description="Environment modules to load on the nodes.")
    prologue: tuple[Line, ...] = Field(default=(), description="Shell lines that come first on the first node, as export NCCL_DEBUG=INFO.")
    python: str | None = Field(default=None, min_length=1, description="Python on the nodes; empty: the one that submits; in a container python3.")
    interface: Word | None = Field(default=None, description="Network interface between the nodes, as ib0; empty: that of the default route.")
    container: Line | None = Field(default=None, description="Container image that driver, workers and ranks run in.")
    container_runtime: Literal["pyxis", "apptainer"] = Field(
        default="pyxis", description="What starts the container: Pyxis with Enroot, or Apptainer."
    )
    container_mounts: tuple[Line, ...] = Field(
        default=(), description="Folders in the container, as /data or /scratch:/data; the run's own is always there."
    )
    critic: Nodes = Field(default=Nodes(), description="Nodes of the critic server.")
    reward: Nodes = Field(default=Nodes(), description="Nodes of the reward server.")
    reference: Nodes = Field(default=Nodes(), description="Nodes of the reference server.")
    max_restarts: int = Field(default=3, ge=0, le=100, description="How often the whole gang is started again from its last checkpoint.")

    @property
    def groups(self) -> dict[str, Nodes]:
        """The servers that have nodes of their own."""
        return {name: nodes for name in ("critic", "reward", "reference") if (nodes := getattr(self, name)).nodes}

    @property
    def heterogeneous(self) -> bool:
        return any(nodes.own for nodes in self.groups.values())

    def group(self, role: str) -> str:
        """A server without nodes of its own runs beside the policy; the combined one on the first of its parts' nodes."""
        return next((part for part in role.split("_") if part in self.groups), "actor")

    def serving(self, role: str, processes: int, max_restarts: int) -> Config:
        nodes = self.groups[self.group(role)].nodes if self.group(role) in self.groups else 1
        if processes % nodes:
            raise ValueError(f"the {role} server's {processes} processes do not divide among its {nodes} nodes (backend.{self.group(role)}.nodes)")
        return self.model_copy(update={"num_nodes": nodes, "ranks_per_node": processes // nodes, "max_restarts": max_restarts})

    @property
    def requeues(self) -> bool:
        return self.requeue

    @property
    def chains(self) -> bool:
        return True

    @model_validator(mode="after")
    def _ranks_have_gpus(self) -> Config:
        if self.gpus_per_node and self.ranks_per_node > self.gpus_per_node:
            raise ValueError(f"ranks_per_node={self.ranks_per_node} is more than gpus_per_node={self.gpus_per_node}: one rank a GPU")
        return self

    @model_validator(mode="after")
    def _somebody_sees_a_lost_driver(self) -> Config:
        if self.spare_nodes and self.container and self.container_runtime == "pyxis":
            raise ValueError("spare_nodes: with Pyxis the surviving nodes cannot ask SLURM whether the driver's node is lost; set spare_nodes=0")
        return self
