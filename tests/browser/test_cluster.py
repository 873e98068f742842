"""The Cluster page in Chromium: this machine with a run, and a made-up SLURM of many nodes, behind stand-ins for its commands."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.app import synthetic
from tests.backends import stand_in
from tests.backends.slurm_commands import PARTITION, SEP, node
from tests.browser.conftest import page_of, settled, started
from workbench import api
from workbench.bench.browser import Server

pytestmark = pytest.mark.browser
PICTURE = "/tmp/cluster-{}.png"


def job(number: int, state: str, name: str, user: str, nodes: str, count: int, reason: str = "None", start: str = "2026-11-25T20:00:00") -> str:
    return SEP.join((str(number), state, reason, start, str(count), nodes, "h100", name, user, "1:07:12", "12:00:00", "gres:gpu:8")) + "\n"


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """SLURM's commands for 24 nodes: some given to jobs, some in part, some down."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    states = ["ALLOCATED"] * 9 + ["MIXED"] * 4 + ["IDLE"] * 9
    texts = [
        node(f"h100-{n:02d}", state, {"ALLOCATED": 96, "MIXED": 24}.get(state, 0), {"ALLOCATED": 8, "MIXED": 2}.get(state, 0))
        for n, state in enumerate(states, 1)
    ]
    texts.append(node("h100-23", "DRAIN", reason=" Reason=fan 3 stands still [root@2026-11-25T10:00:00]"))
    texts.append(node("h100-24", "DOWN*", reason=" Reason=Not responding [slurm@2026-11-25T10:00:00]"))
    jobs = job(11, "RUNNING", "llama", "bob", "h100-[01-05]", 5) + job(12, "RUNNING", "eval", "eve", "h100-[10-13]", 4)
    jobs += job(13, "PENDING", "sweep", "bob", "", 16, "Resources", "2026-11-26T06:30:00")
    (folder / "node.out").write_text("".join(texts))
    (folder / "partition.out").write_text(
        PARTITION.format(name="h100", default="YES", limit="1-00:00:00", state="UP")
        + PARTITION.format(name="all", default="NO", limit="UNLIMITED", state="UP")
    )
    (folder / "jobs.out").write_text(jobs)
    for name, does in {
        "scontrol": f"for what; do :; done\ncat {folder}/$what.out",
        "squeue": f"case $* in *--user=*) ;; *) cat {folder}/jobs.out ;; esac",
        "sbatch": "echo slurm 23.11.4",
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{does}\n")
        (folder / name).chmod(0o700)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Server]:
    """A test that has `slurm` names it before what is of the app: then that finds SLURM's commands."""
    with started(tmp_path) as server:
        yield server


def test_this_machine_shows_a_runs_processes_and_refreshes_by_itself(server, page, seen):
    page.goto(f"{server.url}/cluster")
    expect(page.get_by_text("Nothing of yours runs here.")).to_be_visible()
    run = api.Run(stand_in.start(server.runs, stand_in.BUSY).dir)
    try:
        run.dir.spec_path.chmod(0o600)
        run.dir.spec_path.write_text(synthetic.spec_yaml())
        box = page.locator(f"[class*='st-key-allocation-{run.id}']")
        expect(box).to_be_visible(timeout=120_000)
        expect(box).to_contain_text("1 rank on", timeout=120_000)
        box.get_by_role("button", name="Open").click()
        expect(page).to_have_url(f"{server.url}/run?id={run.id}")
    finally:
        run.kill()
    assert len([url for url in seen.requests if url.endswith("/cluster")]) == 1
    assert seen.errors == []


def test_slurms_nodes_are_tiles_that_say_what_they_do(slurm, server, page, seen):
    page.goto(f"{server.url}/cluster")
    tiles = page.locator(".wb-node")
    expect(tiles).to_have_count(24)
    expect(tiles.nth(22)).to_contain_text("fan 3 stands still")
    expect(tiles.nth(9)).to_contain_text("2 / 8")
    expect(page.get_by_test_id("stMetric").filter(has_text="Nodes")).to_contain_text("of 24 · 9 idle")
    (slurm / "node.out").write_text((slurm / "node.out").read_text().replace("fan 3 stands still", "fan 3 repaired, to be tested"))
    expect(tiles.nth(22)).to_contain_text("to be tested", timeout=120_000)
    page.get_by_role("radio", name="This machine").or_(page.get_by_role("button", name="This machine")).first.click()
    expect(page.locator(".wb-cores > div")).to_have_count(len(os.sched_getaffinity(0)))
    assert seen.errors == []


@pytest.mark.parametrize("where", ["slurm", "here"])
def test_picture(request, where):
    if where == "slurm":
        request.getfixturevalue("slurm")
    server, browser = request.getfixturevalue("server"), request.getfixturevalue("browser")
    run = api.Run(stand_in.start(server.runs, stand_in.BUSY, ranks_per_node=2).dir)
    try:
        run.dir.spec_path.chmod(0o600)
        run.dir.spec_path.write_text(synthetic.spec_yaml())
        for scheme, width in (("light", 1440), ("dark", 1440), ("light", 390)):
            with page_of(browser, server, color_scheme=scheme) as (page, seen):
                page.set_viewport_size({"width": width, "height": 1500})
                page.goto(f"{server.url}/cluster")
                expect(page.get_by_text("2 ranks on")).to_be_visible(timeout=120_000)
                settled(page)
                page.screenshot(path=PICTURE.format(f"{where}-{scheme}-{width}"))
                assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), (scheme, width)
                assert seen.errors == []
    finally:
        run.kill()
