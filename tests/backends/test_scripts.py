"""The batch scripts, against golden files: `python -m tests.backends.test_scripts` writes them anew."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.backends.slurm_commands import GOLDEN
from workbench.backends import _batch, base, slurm
from workbench.backends._slurm_settings import Nodes

RUN = Path("/shared/runs/20261125-101502-dpo-3f9a")
GPUS = {"num_nodes": 8, "ranks_per_node": 8, "gpus_per_node": 8, "cpus_per_node": 96, "memory": "960GB", "exclusive": True, "time_limit": "12:00:00"}
CLUSTER = {"partition": "h100", "account": "align", "qos": "long", "constraint": "h100&ib", "interface": "ib0"}
SLURM: dict[str, dict[str, Any]] = {
    "slurm_1_node_cpu": {"ranks_per_node": 2, "threads_per_rank": 4},
    "slurm_8_nodes_8_gpus": {**GPUS, **CLUSTER, "spare_nodes": 1, "modules": ["cuda/12.8"], "prologue": ["export NCCL_DEBUG=WARN"]},
    "slurm_actor_8_critic_4": {**GPUS, **CLUSTER, "critic": {"nodes": 4, "partition": "a100", "constraint": "a100", "gpus_per_node": 4}},
    "slurm_critic_on_other_nodes": {"num_nodes": 2, "critic": {"nodes": 1}, "reward": {"nodes": 1}},
    "slurm_pyxis": {**GPUS, "container": "nvcr.io#nvidia/pytorch:26.10-py3", "container_mounts": ["/data", "/scratch:/tmp"]},
    "slurm_apptainer": {**GPUS, "container": "/images/our image.sif", "container_runtime": "apptainer", "container_mounts": ["/data"]},
    "slurm_resume": {"num_nodes": 4, "ranks_per_node": 2, "requeue": False, "directives": ["--dependency=singleton"]},
}


OTHERS: dict[str, dict[str, Any]] = {
    "pbs": {"queue": "workq", "account": "align", "time_limit": "4:00:00", "directives": ["-m e"]},
    "lsf": {"queue": "normal", "account": "align", "time_limit": "4:00", "cpus_per_node": 8},
    "sge": {"queue": "all.q", "account": "align", "time_limit": "4:00:00", "directives": ["-pe smp 4"]},
    "oar": {"queue": "default", "account": "align", "time_limit": "4:00:00"},
    "htcondor": {"directives": ["+Group=align", "requirements=HasGpu"]},
}


def other_script(name: str) -> str:
    config = base.find(name).Config(ranks_per_node=4, prologue=("export A=1",), python="/venv/bin/python", **OTHERS[name])
    driver = ("/venv/bin/python", "-m", "workbench.processes.driver", f"{RUN} it's")
    return base.find(name).script(base.Task(RUN, ("worker",), driver, config), cwd=Path("/home/ada"))  # type: ignore[attr-defined]


def slurm_script(name: str) -> str:
    attempt = 2 if name == "slurm_resume" else 1
    driver = ("/venv/bin/python", "-m", "workbench.processes.driver", str(RUN))
    config = slurm.Config(**SLURM[name])
    servers = [base.Task(RUN, ("serve",), driver, config, role=role) for role in config.groups]
    settings = {"python": "/venv/bin/python"} if not config.container else {}
    config = config.model_copy(update=settings)
    return slurm.script(base.Task(RUN, ("worker",), driver, config, attempt, servers=servers), cwd=Path("/home/ada"))


@pytest.fixture(autouse=True)
def _no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASK_CONFIG", str(tmp_path))


@pytest.mark.parametrize("name", SLURM)
def test_slurm(name: str) -> None:
    text = slurm_script(name)
    assert text == (GOLDEN / f"{name}.sh").read_text()
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


@pytest.mark.parametrize("name", OTHERS)
def test_other_systems(name: str) -> None:
    assert other_script(name) == (GOLDEN / f"{name}.sh").read_text()


def test_other_systems_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for bsub, bjobs and bkill: the script on standard input, the id from the answer, its errors in its own words."""
    for name, does in {
        "bsub": "cat > seen; echo 'Job <42> is submitted'",
        "bjobs": "test -e alive && echo RUN || { echo 'Job <42> is not found' >&2; exit 255; }",
        "bkill": "rm alive",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\ncd {tmp_path}\n{does}\n")
        (tmp_path / name).chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(_batch, "LOOK_S", 1e-3)
    run = tmp_path / "run"
    (run / "logs").mkdir(parents=True)
    (tmp_path / "alive").touch()
    lsf = base.find("lsf")
    task = base.Task(run, ("worker",), ("python", "-m", "workbench.processes.driver", str(run)), lsf.Config())
    job = lsf.launch(task)
    assert (job.backend, job.id) == ("lsf", "42")
    assert (tmp_path / "seen").read_text() == (run / "job.1.sh").read_text()
    assert lsf.look(job).alive
    lsf.kill(job)
    assert lsf.look(job).alive is False
    (tmp_path / "bjobs").write_text("#!/bin/sh\necho 'LSF is down. Please wait ...' >&2\nexit 255\n")
    assert lsf.look(job).alive is None
    (tmp_path / "bsub").write_text("#!/bin/sh\necho 'normal: No such queue' >&2\nexit 255\n")
    with pytest.raises(OSError, match="normal: No such queue"):
        lsf.launch(task)


def test_jobqueue_yaml_is_honoured(tmp_path: Path) -> None:
    (tmp_path / "jobqueue.yaml").write_text(
        "jobqueue:\n  slurm:\n    queue: gold\n    walltime: '02:00:00'\n    cores: 6\n    memory: 12GiB\n    interface: ib1\n"
        "    python: /site/python\n    job-extra-directives: ['--mail-type=FAIL']\n    job-script-prologue: ['source /site/env.sh']\n"
    )
    config = slurm.Config(directives=("--nice=5",), prologue=("export A=1",), time_limit="4:00:00")
    text = slurm.script(base.Task(RUN, ("worker",), ("python", "-m", "workbench.processes.driver", str(RUN)), config), cwd=Path("/"))
    lines = text.splitlines()
    for line in ("#SBATCH -p gold", "#SBATCH --cpus-per-task=6", "#SBATCH --mem=12G", "#SBATCH -t 4:00:00", "#SBATCH --mail-type=FAIL"):
        assert line in lines, line
    assert lines.index("#SBATCH --mail-type=FAIL") < lines.index("#SBATCH --nice=5")
    assert lines.index("source /site/env.sh") < lines.index("export A=1")
    assert "--interface ib1" in text
    assert "/site/python -m workbench.processes.driver" in text


def test_settings_that_would_break_a_script_are_refused() -> None:
    for wrong in ({"partition": "a b"}, {"account": "x\n#SBATCH"}, {"directives": ("--a\n--b",)}, {"modules": ("a;b\n",)}, {"time_limit": "soon"}):
        with pytest.raises(ValidationError):
            slurm.Config(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="one rank a GPU"):
        slurm.Config(gpus_per_node=4, ranks_per_node=8)
    with pytest.raises(ValidationError, match="with Pyxis the surviving nodes cannot ask"):
        slurm.Config(spare_nodes=1, container="image.sqsh")
    with pytest.raises(ValueError, match="do not divide among its 4 nodes"):
        slurm.Config(critic=Nodes(nodes=4)).serving("critic", 6, 0)


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for each in sys.argv[1:] or (*SLURM, *OTHERS):
        (GOLDEN / f"{each}.sh").write_text(slurm_script(each) if each in SLURM else other_script(each))
