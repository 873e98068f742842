"""A run with every file that a run can have, and what can be wrong with each."""

from __future__ import annotations

import base64
import json
import random
import shutil
import time
from dataclasses import asdict
from pathlib import Path

from tests.rundir.records import record
from workbench.rundir import answers, rollouts, store
from workbench.rundir.beats import Beat
from workbench.rundir.store import RunDir
from workbench.serve.discovery import Address

OLD = Path(__file__).with_name("fixtures") / "a4e7fa1"
BAD, GOOD = "20261126-000000-bad-a4e7", "20261126-000000-good-a4e7"


def _junk(kind: str, content: bytes, suffix: str) -> bytes | None:
    """The damaged content; None for no file."""
    noise = random.Random(len(content))
    end = b"\n" if suffix == ".jsonl" else b""
    newer = {**_object(content), "format": store.FORMAT + 1, "kind": 7, "time": "soon"}
    return {
        "empty": b"",
        "half": content[: len(content) * 2 // 5],
        "zeroed": bytes(len(content)),
        "random": b"\n".join(noise.randbytes(60) for _ in range(8)) + end,
        "missing": None,
        "newer": json.dumps(newer).encode() + end,
        "list": b"[]" + end,
        "number": b"7" + end,
        "deep": b"[" * 100_000 + end,
        "huge": b'{"time": 1e999, "step": ' + b"9" * 5000 + b"}" + end,
    }[kind]


def _object(content: bytes) -> dict[str, object]:
    try:
        found = json.loads(content.splitlines()[0])
    except (ValueError, IndexError):
        return {}
    return found if isinstance(found, dict) else {}


KINDS = ("empty", "half", "zeroed", "random", "missing", "newer", "list", "number", "deep", "huge")
MUST = set(KINDS)
LINES = MUST - {"empty", "half", "zeroed", "missing"}
"""What readers of lines pass over: nothing, and a last line that is torn or was never written."""
NAMED: dict[str, set[str]] = {
    "status.json": MUST,
    "spec.yaml": MUST,
    "precision": MUST - {"missing"},
    "commit": MUST - {"missing"},
    "weights": MUST - {"missing"},
    "events/actor.jsonl": LINES,
    "events/driver.jsonl": LINES,
    "control.jsonl": LINES,
    "beats/actor-0.json": MUST - {"missing"},
    "rollouts/1.parquet": MUST - {"missing"},
    "answers.jsonl": MUST - {"missing", "newer"},
    "answers.parquet": MUST - {"missing"},
    "checkpoints/2/COMPLETE": MUST - {"missing"},
    "checkpoints/2/meta.json": MUST - {"newer"},
    "endpoints/critic.json": MUST - {"missing"},
    "endpoints/critic.key": set(),
    "health/critic.json": MUST - {"missing", "newer"},
    "logs/actor-0.1.log": set(),
    "logs/driver.1.log": set(),
    ".beat": set(),
    "dask/dask.crt": MUST,
    "dask/dask.key": MUST,
}
"""By file the damages that are named. The others harm nobody: no such file is needed, or any bytes are a log."""
CASES = [(name, kind) for name in NAMED for kind in KINDS]


def sound_run(folder: Path) -> Path:
    """A stopped run with every file that a run can have."""
    run = RunDir(folder / GOOD)
    shutil.copytree(OLD / "stopped", run.path)
    for path in (run.path / "spec.yaml", run.path / "checkpoints" / "2" / "meta.json"):
        path.write_text(path.read_text().replace("{ROOT}", "/nowhere"))
    pem = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    beat = Beat("actor", 0, 1, "host", 1, 7, 1.0, 2, "forward", 0.5, "", "", 3, 0.1)
    said = {"role": "critic", "host": "host", "pid": 1, "processes": 1, "attempt": 1, "doing": "", "endpoints": {}}
    files = {
        "events/driver.jsonl": json.dumps({"seq": 0, "time": time.time(), "kind": "warning", "message": "a warning"}) + "\n",
        "beats/actor-0.json": json.dumps(asdict(beat)),
        "endpoints/critic.json": json.dumps(asdict(Address("unix:/nobody", "host", 1, 0.5, "critic.key"))),
        "endpoints/critic.key": base64.b64encode(bytes(32)).decode(),
        "health/critic.json": json.dumps(said),
        "dask/dask.crt": pem,
        "dask/dask.key": pem,
        ".beat": "",
        "commit": "c" * 40,
        "weights": "d" * 32,
    }
    for name, text in files.items():
        (run.path / name).parent.mkdir(exist_ok=True)
        (run.path / name).write_text(text)
    rollouts.write(run, 1, [record() for _ in range(4)])
    answers.write(run, [answers.Asked([{"role": "user", "content": "?"}], {}, row) for row in range(2)], 2, 2)
    return run.path


def damage(run: Path, name: str, kind: str) -> Path:
    path = run / name
    content = _junk(kind, path.read_bytes(), path.suffix)
    path.chmod(0o600)
    path.unlink() if content is None else path.write_bytes(content)
    return path
