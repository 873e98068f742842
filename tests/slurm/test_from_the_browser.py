"""From the form in a real Chromium to nodes of the real SLURM, and back to the live pages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import CHROMIUM, browser_page
from workbench import api
from workbench.bench.browser import Server
from workbench.chaos.lab import MAIN, Lab
from workbench.chaos.scenarios import LIMIT, STEPS, Stage
from workbench.rundir import listing, rollouts
from workbench.rundir.store import RunDir, State

pytestmark = [pytest.mark.browser, pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no Chromium at {CHROMIUM}")]
LOSS = '[data-chart="loss"]'


@pytest.fixture
def server(stage: Stage, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("WORKBENCH_CACHE", str(stage.cache))
    (tmp_path / "runs").mkdir()
    server = Server(tmp_path / "runs")
    server.start()
    yield server
    server.stop()
    for run in listing.list_runs(server.runs):
        if not (it := api.Run(run)).status.state.ended:
            it.kill()


def field(page: Page, key: str) -> Locator:
    """A field of the form, by its setting."""
    return page.locator(f'[class*="st-key-launch-"][class*="-{key.replace(".", "-")}"]').first


def choose(page: Page, group: str, option: str) -> None:
    page.locator(f".st-key-launch-none-{group}").get_by_role("combobox").click()
    page.get_by_role("option", name=option, exact=True).click()
    expect(page.get_by_text(f"{group}={option}").first).to_be_visible()


def fill(page: Page, values: Mapping[str, object]) -> None:
    for key, value in values.items():
        box = field(page, key).locator("input, textarea").first
        box.fill(str(value))
        box.press("Control+Enter")


def launch(page: Page, server: Server) -> api.Run:
    """Press the button, and be on the run's page."""
    expect(page.get_by_text("Every setting is valid.")).to_be_visible()
    page.get_by_role("button", name="Launch run").click()
    page.wait_for_url("**/run?id=*")
    return api.Run(RunDir(server.runs / page.url.partition("id=")[2]))


def common(stage: Stage) -> dict[str, object]:
    return {
        **{"name": "from the form", "model.source": stage.folder / "model", "data.train": stage.folder / "rows.jsonl"},
        **{"algorithm.global_batch_size": 8, "algorithm.max_steps": STEPS, "algorithm.lr": 1e-3},
        **{"validation.every_steps": 0, "validation.samples": 0, "backend.partition": MAIN, "backend.threads_per_rank": 1},
    }


def drawn(page: Page, step: int) -> None:
    page.wait_for_function(f"step => +document.querySelector('{LOSS}')?.dataset.last >= step", arg=step, timeout=240_000)


def ends_well(page: Page, run: api.Run, stage: Stage, algorithm: str) -> None:
    expect(page.get_by_text(re.compile("Completed$")).first).to_be_visible(timeout=240_000)
    assert run.status.state == State.COMPLETED
    drawn(page, STEPS)
    assert stage.difference(run, algorithm) <= LIMIT


def hosts(run: api.Run) -> dict[str, set[str]]:
    """The nodes that each role's ranks beat from."""
    from workbench.rundir import beats

    found: dict[str, set[str]] = {}
    for beat in beats.read(run.dir):
        found.setdefault(beat.role, set()).add(beat.host)
    return found


def test_dpo_on_two_nodes_of_two_ranks(server: Server, stage: Stage) -> None:
    with browser_page(server) as (page, seen):
        page.goto(f"{server.url}/launch?experiment=none")
        choose(page, "backend", "slurm")
        fill(page, {**common(stage), "backend.num_nodes": 2, "backend.ranks_per_node": 2})
        run = launch(page, server)
        drawn(page, 1)
        first = run.status.step
        drawn(page, min(first + 3, STEPS))
        ends_well(page, run, stage, "dpo")
        assert seen.errors == []
    assert len(hosts(run)["actor"]) == 2


def test_ppo_with_critic_and_reward_on_other_nodes_than_the_actor(server: Server, stage: Stage) -> None:
    with browser_page(server) as (page, seen):
        page.goto(f"{server.url}/launch?experiment=none")
        choose(page, "algorithm", "ppo")
        choose(page, "backend", "slurm")
        fill(page, {"algorithm.rewards": f"short: {{program: '{stage.folder / 'mine.py'}:short'}}"})
        for role in ("critic", "reward"):
            field(page, "algorithm.served").get_by_role("button", name=role, exact=True).click()
        page.get_by_text("Servers' nodes").click()
        fill(page, {**common(stage), "algorithm.rollout_batch_size": 8, "algorithm.max_tokens": 8})
        fill(page, {"algorithm.critic.global_batch_size": 8, "algorithm.critic.lr": 1e-3})
        fill(page, {"backend.num_nodes": 1, "backend.ranks_per_node": 2, "backend.critic.nodes": 1, "backend.reward.nodes": 1})
        run = launch(page, server)
        drawn(page, 1)
        page.goto(f"{server.url}/rollouts?id={run.id}")
        caption = page.get_by_text(re.compile(r"of [\d,]+ rollouts"))
        expect(caption).to_be_visible(timeout=240_000)
        before = len(rollouts.steps(run.dir))
        shown = "() => +document.body.innerText.match(/of ([\\d,]+) rollouts/)[1].replace(',', '')"
        page.wait_for_function(f"least => ({shown})() >= least", arg=8 * min(before + 3, STEPS), timeout=240_000)
        page.goto(f"{server.url}/run?id={run.id}")
        ends_well(page, run, stage, "ppo")
        assert seen.errors == []
    where = hosts(run)
    assert len({host for role in ("actor", "critic", "reward") for host in where[role]}) == 3
