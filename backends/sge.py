"""SGE: single-node jobs; see _batch."""

from typing import Literal

from pydantic import Field

from workbench.backends import _batch, local


class Config(_batch.Config):
    name: Literal["sge"] = Field(default="sge", description="A Grid Engine cluster, one node.")


_SYSTEM = _batch.System("sge", submit=("qsub",), cancel=("qdel",), ask=("qstat", "-j"))
script, check, launch = _SYSTEM.script, _SYSTEM.check, _SYSTEM.launch
look, withdraw, kill = _SYSTEM.look, _SYSTEM.withdraw, _SYSTEM.kill
gang = local.gang
