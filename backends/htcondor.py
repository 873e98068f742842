"""HTCondor: single-node jobs; see _batch."""

from typing import Literal

from pydantic import Field

from workbench.backends import _batch, local


class Config(_batch.Config):
    name: Literal["htcondor"] = Field(default="htcondor", description="An HTCondor pool, one machine.")


_SYSTEM = _batch.System(
    "htcondor",
    submit=("condor_submit",),
    cancel=("condor_rm",),
    ask=("condor_q", "-autoformat", "ClusterId"),
    id_pattern=r"submitted to cluster (\d+)",
    fallback={"disk": "8 GB"},
    directives_by_key=True,
)
script, check, launch = _SYSTEM.script, _SYSTEM.check, _SYSTEM.launch
look, withdraw, kill = _SYSTEM.look, _SYSTEM.withdraw, _SYSTEM.kill
gang = local.gang
