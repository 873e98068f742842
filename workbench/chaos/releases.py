"""SLURM of another Debian release than the machine's, for `Lab(release=…)`: its real programs, unpacked with their own libraries (amd64).

Nothing of it is installed and no environment is set: each program's header names that release's loader and libraries, so that what a job
starts finds the machine's own.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

CGROUP_CONF = {"": "CgroupPlugin=cgroup/v1\n", "bullseye": "", "trixie": "CgroupPlugin=disabled\n", "sid": "CgroupPlugin=disabled\n"}
"""The releases (empty: the machine's own, bookworm), and how each is configured for a lab without cgroups."""
NEEDS = ("patchelf", "debian-archive-keyring")
MIRROR = "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
CACHE = Path("~/.cache/workbench-lab").expanduser()
PACKAGES = ("slurmctld", "slurmd", "slurmdbd", "slurm-client", "slurm-wlm-basic-plugins")
PROGRAMS = (
    *(Path("usr/bin") / name for name in ("sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo", "sacct", "sacctmgr")),
    *(Path("usr/sbin") / f"{name}-wlm" for name in ("slurmctld", "slurmd", "slurmstepd")),
    Path("usr/sbin/slurmdbd"),
)
LOADER = "ld-linux-x86-64.so.2"
LIBRARIES = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")
PLUGINS = f"{LIBRARIES[0]}/slurm-wlm"


def unpack(release: str) -> Path:
    """The folder with that release's SLURM: its programs in `bin`, its plugins in `PLUGINS`. Downloads 25 to 50 MB the first time."""
    folder = CACHE / release
    if folder.exists():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        root, kept = Path(name) / "root", Path(name) / "kept"
        for package in _download(release, Path(name)):
            _run("dpkg", "-x", str(package), str(root))
        for where in LIBRARIES:
            if (root / where).exists():
                (kept / where).parent.mkdir(parents=True)
                (root / where).rename(kept / where)
        loader = next(where for where in LIBRARIES if (kept / where / LOADER).exists())
        paths = ":".join(str(folder / where) for where in (PLUGINS, *LIBRARIES))
        (kept / "bin").mkdir()
        for program in PROGRAMS:
            own = kept / "bin" / program.name.removesuffix("-wlm")
            shutil.copy(root / program, own)
            _run("patchelf", "--set-interpreter", str(folder / loader / LOADER), "--force-rpath", "--set-rpath", paths, str(own))
        kept.rename(folder)
    return folder


def _download(release: str, folder: Path) -> list[Path]:
    """The packages with all that they depend on, as apt resolves them for a machine that has nothing."""
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(f"deb [signed-by={KEYRING}] {MIRROR} {release} main\n")
    settings = {
        "Dir::Etc::SourceList": folder / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "Dir::Cache::Archives": folder / "cache/archives",
        "Acquire::Languages": "none",
        "Acquire::Retries": 3,
        "APT::Sandbox::User": "root",
    }
    options = [f"--option={key}={value}" for key, value in settings.items()]
    _run("apt-get", *options, "--quiet", "update")
    _run("apt-get", *options, "--quiet", "--yes", "--download-only", "--no-install-recommends", "install", *PACKAGES)
    return sorted((folder / "cache/archives").glob("*.deb"))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command[:1] + command[-2:])}: {done.stderr.strip() or done.stdout.strip()}")
