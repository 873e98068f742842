"""The Steer and Chat pages in Chromium: sliders move streamed answers, checkpoints stand side by side, and nothing is lost or asked twice."""

from __future__ import annotations

import json
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from playwright.sync_api import Download, Locator, Page, expect

from tests import fake_endpoint
from tests.browser.conftest import settled
from tests.fake_endpoint import Endpoint
from tests.waiting import until
from workbench import api
from workbench.data.targets import Targets
from workbench.rundir.files import read_json
from workbench.rundir.store import State
from workbench.settings import Steering

pytestmark = pytest.mark.browser


@pytest.fixture
def endpoint(runs) -> Iterator[Endpoint]:
    with fake_endpoint.serving(runs) as endpoint:
        yield endpoint


def opened(page: Page, url: str) -> None:
    page.goto(url)
    expect(page.locator(".wb-studio .wb-input").first).to_be_visible()
    settled(page)


def column(page: Page, number: int) -> Locator:
    return page.locator(".wb-column").nth(number)


def slide(where: Locator, attribute: str, level: int) -> None:
    where.get_by_role("slider", name=attribute, exact=True).press(str(level))


def idle(page: Page) -> None:
    page.wait_for_function("() => document.querySelector('.wb-studio').dataset.busy === 'false'")


def rows(download: Download) -> list[dict]:
    return [json.loads(line) for line in Path(download.path()).read_text().splitlines()]


def test_sliders_columns_sweep_and_rows(endpoint: Endpoint, server, page, seen) -> None:
    opened(page, f"{server.url}/steer")
    prompt, first = page.get_by_role("textbox", name="Prompt", exact=True), column(page, 0)
    slide(first, "verbosity", 0)
    prompt.fill("What is a map?")
    prompt.press("Enter")
    expect(first.locator(".wb-text")).to_have_text("STEERLM A map shows")
    expect(first.locator("tr[data-measured=verbosity]")).to_have_text(re.compile("verbosity0 ?0 rule"))
    slide(first, "verbosity", 4)
    expect(first.locator(".wb-text")).to_contain_text("It also tells what lies")
    expect(first.locator("tr[data-measured=verbosity]")).to_have_text(re.compile("verbosity4 ?4 rule"))

    page.get_by_role("button", name="Add a column").click()
    second = column(page, 1)
    second.get_by_role("combobox", name="Column 2: checkpoint").select_option(label="base")
    expect(second).to_contain_text("was not trained with attributes")
    before = len(endpoint.asked)
    prompt.press("Control+Enter")
    expect(second.locator(".wb-text")).to_contain_text("BASE A map")
    idle(page)
    assert [(body["model"], body.get("attributes")) for body in endpoint.asked[before:]].count(("base", None)) == 1
    assert len(endpoint.asked) == before + 2

    second.get_by_role("combobox", name="Column 2: checkpoint").select_option(label="steerlm-2 · step 160")
    slide(second, "quality", 4)
    slide(second, "humor", 2)
    expect(second).to_contain_text("Out of reach. No training row has ratings like these")
    second.get_by_role("button", name="Use the nearest").click()
    expect(second.locator(".wb-reach")).to_be_empty()
    second.get_by_role("checkbox", name="humor: set").uncheck()
    idle(page)
    second.get_by_role("button", name="Sweep verbosity").click()
    cells = page.locator(".wb-cell")
    expect(cells).to_have_count(5)
    idle(page)
    lengths = [len(text.split()) for text in cells.locator(".wb-text").all_inner_texts()]
    assert lengths == [1 + words for words in fake_endpoint.WORDS]
    assert (
        sorted(body["attributes"]["verbosity"] for body in endpoint.asked[-5:]) == [0, 1, 2, 3, 4] and "humor" not in endpoint.asked[-1]["attributes"]
    )

    with page.expect_download() as download:
        page.get_by_role("button", name=re.compile("Export .* rows")).click()
    kept = rows(download.value)
    swept = [row for row in kept if row["model"] == "steerlm-2" and len(row["requested"]) == 2][-5:]
    assert sorted((row["requested"]["verbosity"], row["attributes"]["verbosity"]) for row in swept) == [(level, level) for level in range(5)]
    assert kept[0] == {
        **kept[0],
        "prompt": [{"role": "user", "content": "What is a map?"}],
        "response": "STEERLM A map shows",
        "checkpoint": "/runs/steerlm",
        "finish_reason": "stop",
    }
    assert seen.errors == []
    assert endpoint.token not in page.content() and not [url for url in seen.requests if endpoint.url in url]


def test_stop_breaks_reloads_and_presets(endpoint: Endpoint, server, page, seen) -> None:
    opened(page, f"{server.url}/steer")
    prompt, first = page.get_by_role("textbox", name="Prompt", exact=True), column(page, 0)
    answer = first.locator(".wb-text")
    slide(first, "verbosity", 3)
    prompt.fill("Please hold.")
    prompt.press("Enter")
    expect(answer).to_have_text(re.compile("STEERLM A map"))  # the beginning, while the rest is still to come
    expect(first.locator(".wb-said")).to_have_attribute("data-status", "streaming")
    page.keyboard.press("Escape")
    expect(first).to_contain_text("stopped")
    until(lambda: endpoint.cancelled == 1)
    prompt.press("Enter")
    expect(first.locator(".wb-said")).to_have_attribute("data-status", "streaming")
    page.get_by_test_id("stSidebarNav").get_by_role("link", name="Runs", exact=True).click()  # leaving cancels
    until(lambda: endpoint.cancelled == 2)
    assert len(endpoint.asked) == 2

    opened(page, f"{server.url}/steer")  # what was there is there again, and nothing is asked anew
    expect(prompt).to_have_value("Please hold.")
    expect(answer).to_have_text("STEERLM A map")
    assert len(endpoint.asked) == 2
    prompt.fill("Now break.")
    prompt.press("Enter")
    expect(first.locator(".wb-error")).to_contain_text("The answer broke off")
    expect(answer).to_have_text("STEERLM A map")
    prompt.fill("What is a map?")
    first.get_by_role("button", name="Try again").click()
    expect(answer).to_contain_text("plan a way before")
    idle(page)

    first.get_by_text("More", exact=True).click()
    name = first.get_by_role("textbox", name="Name of a preset")
    name.fill("wordy")
    name.press("Enter")
    expect(page.get_by_text("Kept as “wordy”.")).to_be_visible()
    slide(first, "verbosity", 0)
    idle(page)
    first.get_by_role("combobox", name="Presets").select_option("wordy")
    expect(first.get_by_role("slider", name="verbosity")).to_have_value("3")
    idle(page)
    endpoint.run.update(state=State.STOPPED)
    expect(page.get_by_text("No endpoint is running.")).to_be_visible()
    expect(first).to_contain_text("No endpoint serves this checkpoint now")
    assert [error for error in seen.errors if "Failed to fetch" not in error] == []


def test_chat_blind_votes_edits_and_rows(endpoint: Endpoint, server, page, seen) -> None:
    opened(page, f"{server.url}/chat")
    message = page.get_by_role("textbox", name="Message")
    page.get_by_role("button", name="Blind A/B").click()
    message.fill("What is a map?")
    message.press("Enter")
    idle(page)
    sides = page.locator(".wb-side")
    expect(sides).to_have_count(2)
    heads = sides.locator("header")
    assert heads.all_inner_texts() == ["A", "B"]
    texts = sides.locator(".wb-text").all_inner_texts()
    assert sorted(text.split()[0] for text in texts) == ["BASE", "STEERLM"]
    page.get_by_role("button", name="B is better").click()
    winner = texts[1].split()[0].lower()
    expect(heads.nth(1)).to_have_text(re.compile(rf"B · {winner}.*your choice"))
    expect(page.get_by_text(f"{winner}: 1 won, 0 lost")).to_be_visible()

    message.fill("And a compass?")
    message.press("Enter")
    idle(page)
    histories = [[turn["content"] for turn in body["messages"]] for body in endpoint.asked[-2:]]
    assert histories == [["What is a map?", texts[1], "And a compass?"]] * 2  # the answer that was voted for continues on both sides
    turn = page.locator(".wb-turn").nth(0)
    turn.locator(".wb-user").get_by_role("button", name="Edit").click()
    area = page.get_by_role("textbox", name="The message, changed")
    area.fill("What is a globe?")
    area.press("Enter")
    idle(page)
    expect(page.locator(".wb-turn")).to_have_count(1)
    assert [body["messages"][0]["content"] for body in endpoint.asked[-2:]] == ["What is a globe?"] * 2
    with page.expect_download() as download:
        page.get_by_role("button", name="Save 1 vote as pairs").click()
    (pair,) = rows(download.value)
    assert (pair["chosen"], pair["rejected"], pair["prompt"]) == (texts[1], texts[0], [{"role": "user", "content": "What is a map?"}])
    page.get_by_role("button", name="One", exact=True).click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as rows").click()
    (conversation,) = rows(download.value)
    assert [turn["role"] for turn in conversation["messages"]] == ["user", "assistant"]
    assert seen.errors == []


@pytest.fixture
def served(runs, tiny_model: Path, tmp_path: Path, monkeypatch) -> Iterator[api.Run]:
    """A real endpoint: a tiny model that says it was trained with two attributes, and one that does not."""
    monkeypatch.setenv("WORKBENCH_RUNS", str(runs))
    steered = shutil.copytree(tiny_model, tmp_path / "steered")
    steering = Steering(attributes=("verbosity", "humor"))
    ratings = [{"verbosity": float(v), "humor": float(h)} for v in range(5) for h in range(5) for _ in range(6)]
    Targets.of(steering, ratings, {}).write(steered / "attributes.json")
    run = api.serve([str(steered), str(tiny_model)], ["job.rules=[verbosity]", "backend.threads_per_rank=1"])
    yield run
    if not run.status.state.ended:
        run.kill()


def test_a_real_endpoint_is_served_steered_and_stopped(served: api.Run, server, page, seen) -> None:
    page.goto(f"{server.url}/steer")
    expect(page.locator(".wb-column")).to_be_visible(timeout=240_000)
    page.get_by_text("System prompt and sampling").click()
    page.get_by_role("spinbutton", name="Most tokens").fill("40")
    first, prompt = column(page, 0), page.get_by_role("textbox", name="Prompt", exact=True)
    prompt.fill("What is a map?")
    page.get_by_role("button", name="Add a column").click()
    column(page, 1).get_by_role("combobox").first.select_option(index=1)
    prompt.press("Enter")
    idle(page)
    for each in (first, column(page, 1)):
        expect(each.locator(".wb-about").last).to_contain_text("40 tokens")
    expect(first.locator("tr[data-measured=verbosity]")).to_contain_text("rule")
    before = first.locator(".wb-text").inner_text()
    slide(first, "verbosity", 4)
    idle(page)
    assert first.locator(".wb-text").inner_text() != before
    url = urlsplit(read_json(served.dir.path / "endpoints" / "http.json")["url"])
    (found,) = api.cluster("local").allocations
    assert sum(use.memory_mib for use in found.ranks) > 50
    page.get_by_test_id("stPopover").first.get_by_role("button").click()
    page.get_by_role("button", name="Stop the endpoint").click()
    assert served.wait(120).state == State.STOPPED
    expect(page.get_by_text("No endpoint is running.")).to_be_visible()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((url.hostname, url.port), timeout=5).close()
    until(lambda: not any(psutil.pid_exists(use.pid) for use in found.uses))  # and with its processes all their memory
    assert seen.errors == []
