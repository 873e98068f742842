"""PBS: single-node jobs; see _batch."""

from typing import Literal

from pydantic import Field

from workbench.backends import _batch, local


class Config(_batch.Config):
    name: Literal["pbs"] = Field(default="pbs", description="A PBS cluster, one node.")


_SYSTEM = _batch.System("pbs", submit=("qsub",), cancel=("qdel",), ask=("qstat",), account_key="account")
script, check, launch = _SYSTEM.script, _SYSTEM.check, _SYSTEM.launch
look, withdraw, kill = _SYSTEM.look, _SYSTEM.withdraw, _SYSTEM.kill
gang = local.gang
