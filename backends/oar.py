"""OAR: single-node jobs; see _batch."""

from typing import Literal

from pydantic import Field

from workbench.backends import _batch, local


class Config(_batch.Config):
    name: Literal["oar"] = Field(default="oar", description="An OAR cluster, one node.")


_SYSTEM = _batch.System("oar", submit=("oarsub",), cancel=("oardel",), ask=("oarstat", "-j"), id_pattern=r"OAR_JOB_ID=(\d+)", inline="#OAR ")
script, check, launch = _SYSTEM.script, _SYSTEM.check, _SYSTEM.launch
look, withdraw, kill = _SYSTEM.look, _SYSTEM.withdraw, _SYSTEM.kill
gang = local.gang
