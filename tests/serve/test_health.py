"""What a user is told of a server: from its own account, and from its health endpoint where it is on this host."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import until
from workbench.rundir.files import write_atomic
from workbench.serve import discovery, health
from workbench.serve.health import Health, reports


def told(run: Path, ended: bool = False, **said: Any) -> str:
    path = run / "health" / "critic.json"
    if said:
        write_atomic(path, json.dumps({**json.loads(path.read_text()), **said}))
    (report,) = reports(run, ["critic"], ended)
    return str(report)


def test_what_a_server_says_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_ATTEMPT", "2")
    assert told(tmp_path) == "starting"
    began = time.time()
    server = Health(tmp_path, "critic", 2, lambda: {"here": "reward", "swaps": 3, "swapped_s": 0.25, "host_bytes": 10})
    server.start()
    server.doing("critic_infer")
    server.done("critic_infer", 0.5, 0.125, refused=False, waiting=4)
    server.done("critic_infer", 0.5, 0.125, refused=True, waiting=0)
    server.doing("critic_train")
    server.close()
    said = json.loads((tmp_path / "health" / "critic.json").read_text())
    assert said["endpoints"] == {"critic_infer": {"calls": 2, "refused": 1, "computed_s": 1.0, "waited_s": 0.25}}
    assert (said["doing"], said["waiting"], said["attempt"]) == ("critic_train", 0, 2)
    assert began <= said["updated"] <= time.time()
    rest = f"critic_infer 2 in 1.0 s; 1 refused; reward on the accelerator, 3 swaps in 0.2 s; 2 processes on {socket.gethostname()}; attempt 2"
    assert told(tmp_path) == f"starting; {rest}"  # its endpoint is not announced
    discovery.publish(tmp_path, "critic", "unix:/nobody", b"key")
    assert told(tmp_path) == f"not ready; {rest}"
    assert told(tmp_path, ended=True) == f"ended; {rest}"
    assert told(tmp_path, host="elsewhere").startswith("busy with critic_train; ")  # its own word is all there is
    assert told(tmp_path, doing="", endpoints={}).startswith("ready; no request yet; ")
    assert told(tmp_path, updated=time.time() - 60).startswith("ready; ")  # its host's clock is another
    os.utime(tmp_path / "health" / "critic.json", times=(time.time() - 60, time.time() - 60))
    assert told(tmp_path).startswith("silent for 60 s; ")


def test_it_says_so_again_when_the_disk_has_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(health, "WRITE_S", 0.01)
    full = 3

    def write(path: Path, text: str) -> None:
        nonlocal full
        full -= 1
        if full >= 0:
            raise OSError(28, "No space left on device")
        write_atomic(path, text)

    monkeypatch.setattr(health, "write_atomic", write)
    server = Health(tmp_path, "critic")
    server.start()
    until((tmp_path / "health" / "critic.json").exists)
    server.close()
    assert capfd.readouterr().err.count("No space left") == 1


def test_it_goes_on_saying_what_takes_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "WRITE_S", 0.05)
    server = Health(tmp_path, "critic")
    server.start()
    server.doing("critic_train")
    path, seen = tmp_path / "health" / "critic.json", set()

    def written_thrice() -> bool:
        if path.exists() and (said := json.loads(path.read_text()))["doing"] == "critic_train":
            seen.add(said["updated"])
        return len(seen) >= 3

    until(written_thrice)
    server.close()
