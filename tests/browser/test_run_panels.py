"""Profile, alarms and controls of the Run page in Chromium, with a run of PPO that has all of them."""

import pytest
from playwright.sync_api import expect

from tests.app import synthetic_rollouts
from tests.browser.conftest import page_of
from workbench.rundir.events import EventWriter
from workbench.rundir.files import ByteCursor

pytestmark = pytest.mark.browser
PICTURE = "/tmp/run-{}-{}.png"


def test_the_profile_is_drawn_and_follows_the_run(server, page, seen):
    run = synthetic_rollouts.make(server.runs, 12)
    page.goto(f"{server.url}/run?id={run.id}")
    page.get_by_role("tab", name="Profile").click()
    bars = f"() => document.querySelector('.st-key-profile-{run.id} .js-plotly-plot')?.data"
    page.wait_for_function(f"() => ({bars})()?.[0]?.x?.length === 12")
    names = page.evaluate(f"() => ({bars})().map(trace => trace.name)")
    assert names[0] == "Generate"
    assert {"Forward and backward", "Log-probabilities", "Everything else"} <= set(names)
    EventWriter(run).write("step", step=13, metrics=synthetic_rollouts.step_metrics(13))
    page.wait_for_function(f"() => ({bars})()[0].x.length === 13", timeout=60_000)
    expect(page.get_by_test_id("stMetric").filter(has=page.get_by_text("Refit of the weights"))).to_contain_text("0.00% of a step")
    assert seen.errors == []


def test_a_change_and_a_pause_are_asked_for(server, page, seen):
    run = synthetic_rollouts.make(server.runs, 12)
    page.goto(f"{server.url}/run?id={run.id}")
    page.get_by_role("tab", name="Controls").click()
    field = page.get_by_role("spinbutton", name="KL coefficient").or_(page.get_by_role("textbox", name="KL coefficient"))
    field.fill("0.07")
    page.get_by_role("button", name="Apply at the next step").click()
    page.get_by_role("button", name="Pause", exact=True).click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    asked = run.requests(ByteCursor())
    assert [(each["request"], each.get("values")) for each in asked] == [("set", {"kl_coefficient": 0.07}), ("pause", None)]
    events = EventWriter(run)
    for each in asked:
        events.write("control", step=12, **{"asked" if key == "time" else key: value for key, value in each.items()})
    expect(field).to_have_value("0.07")
    assert seen.errors == []


def test_an_alarm_leads_to_its_rollout_and_goes_when_it_is_over(server, page, seen):
    run = synthetic_rollouts.make(server.runs, 12)
    events = EventWriter(run)
    page.goto(f"{server.url}/run?id={run.id}")
    expect(page.get_by_role("tab", name="Curves")).to_be_visible()
    events.write("alarm", step=12, name="KL blow-up", message="the policy is 61.2 nats from its reference", rollouts=[7])
    alert = page.get_by_role("alert").filter(has_text="KL blow-up")
    expect(alert).to_be_visible()
    events.write("alarm_over", step=12, name="KL blow-up")
    expect(alert).to_be_hidden()
    expect(page.get_by_text("1 past alarm")).to_be_visible()
    events.write("alarm", step=12, name="KL blow-up", message="again", rollouts=[7])
    page.get_by_role("button", name="Rollout 7").click()
    expect(page.get_by_role("heading", name="Step 12 · rollout 7")).to_be_visible()
    assert seen.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_picture(browser, server, scheme):
    run = synthetic_rollouts.make(server.runs, 48)
    events, driver = EventWriter(run), EventWriter(run, "driver")
    events.write("alarm", step=31, name="length", message="the reward rises while answers grow from 22 to 41 tokens", rollouts=[3, 7])
    events.write("alarm_over", step=36, name="length")
    events.write("alarm", step=48, name="KL blow-up", message="the policy is 61.2 nats from its reference (limit 50)", rollouts=[1, 9, 14])
    driver.write("alarm", step=48, name="hang", message="no rank made progress for 5 min; rank 1 does not beat", ranks=["actor 1"], seconds=300.0)
    events.write("control", step=20, request="set", values={"kl_coefficient": 0.05})
    with page_of(browser, server, color_scheme=scheme) as (page, seen):
        page.set_viewport_size({"width": 1440, "height": 1560})
        page.goto(f"{server.url}/run?id={run.id}")
        for tab, ready in (("Profile", ".js-plotly-plot .bars"), ("Controls", "form, [data-testid=stForm]")):
            page.get_by_role("tab", name=tab).click()
            expect(page.locator(ready).first).to_be_visible()
            page.wait_for_timeout(1500)
            page.screenshot(path=PICTURE.format(tab.lower(), scheme))
            assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
        assert seen.errors == []
