"""LSF: single-node jobs; see _batch."""

from typing import Literal

from pydantic import Field

from workbench.backends import _batch, local


class Config(_batch.Config):
    name: Literal["lsf"] = Field(default="lsf", description="An LSF cluster, one node.")


_SYSTEM = _batch.System("lsf", submit=("bsub",), cancel=("bkill",), ask=("bjobs", "-noheader"), id_pattern=r"Job <(\d+)>", from_stdin=True)
script, check, launch = _SYSTEM.script, _SYSTEM.check, _SYSTEM.launch
look, withdraw, kill = _SYSTEM.look, _SYSTEM.withdraw, _SYSTEM.kill
gang = local.gang
