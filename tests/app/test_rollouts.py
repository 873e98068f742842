"""The Rollouts page: what it lists, what the filters leave, and what it shows of one rollout."""

import re

import pytest

from tests.app import synthetic, synthetic_rollouts
from tests.app.pages import by_label, settled, words
from workbench.rundir import listing, rollouts
from workbench.rundir.store import State
from workbench.views import rollouts as views
from workbench.views import text


def html(page):
    return "\n".join(item.proto.body for item in page.get("html"))


def listed(page):
    return [(int(step), int(number)) for step, number in page.dataframe[0].value[["step", "rollout"]].to_numpy()]


def tab(page, word):
    return next(tab.label for tab in page.tabs if word in tab.label)


@pytest.fixture
def run(runs):
    return synthetic_rollouts.make(runs)


def test_empty_says_who_writes_rollouts(app, runs):
    assert "No runs yet" in words(app("rollouts"))
    run = synthetic.make(runs, steps=5)
    page = app("rollouts", id=run.id)
    assert "samples no rollouts" in words(page)
    assert "algorithm is `dpo`" in words(page)
    run.update(state=State.COMPLETED)
    assert "### No rollouts\n" in words(app("rollouts", id=run.id))


def test_newest_run_with_rollouts_without_an_id(app, runs, run):
    synthetic.make(runs, "z-newer", 5)
    page = app("rollouts")
    assert by_label(page.selectbox, "Run").value == run.id
    by_label(page.selectbox, "Run").set_value(listing.list_runs(runs)[0].id).run()
    assert "samples no rollouts" in words(settled(page))


def test_headline_and_table(app, run):
    page = app("rollouts", id=run.id)
    made = synthetic_rollouts.records(12)
    mean = sum(record["reward"] for record in made) / 16
    shown = {metric.label: metric.value for metric in page.metric}
    assert (shown["Step"], shown["Rollouts"]) == ("12", "16")
    assert page.metric[2].value == text.number(mean)
    table = page.dataframe[0].value
    assert listed(page)[:17] == [*((12, n) for n in range(16)), (11, 0)]
    assert table["prompt"][0] == synthetic.PROMPTS[1]
    assert table["finish_reason"][0] in (["Ended"], ["Truncated"])
    assert "reward/helpful" in table
    assert "1–50 of 192 rollouts" in words(page)


def test_search_filter_sort_and_page(app, run):
    page = app("rollouts", id=run.id)
    by_label(page.text_input, "Search").set_value("SLEEPY cats").run()
    assert {int(number) for _, number in listed(settled(page))} <= set(range(12, 16))
    by_label(page.text_input, "Search").set_value("no such words'; --").run()
    assert "No rollout matches" in words(settled(page))
    by_label(page.text_input, "Search").set_value("").run()
    by_label(page.selectbox, "Sort by").set_value("reward").run()
    rewards = [record["reward"] for step in range(1, 13) for record in synthetic_rollouts.records(step)]
    assert page.dataframe[0].value["reward"][0] == pytest.approx(max(rewards))
    by_label(page.number_input, "Page (of 4)").set_value(4).run()
    assert len(settled(page).dataframe[0].value) == 192 - 150
    by_label(page.number_input, "From step").set_value(3).run()
    by_label(page.number_input, "To step").set_value(3).run()
    assert {step for step, _ in listed(settled(page))} == {3}
    by_label(page.number_input, "Min reward").set_value(0.5).run()
    assert (page.dataframe[0].value["reward"] >= 0.5).all()


def test_the_first_rollout_is_open_with_its_tokens(app, run):
    page = app("rollouts", id=run.id)
    rollout = rollouts.one(run, 12, 0)
    assert "#### Step 12 · rollout 0" in words(page)
    first = next(iter(views.quantities(rollout)))
    assert views.coloured(rollout["pieces"], rollout["logprobs"], signed=first.signed) in html(page)
    assert re.sub(r"<[^>]*>", "", html(page)).count("&lt;|im_start|&gt;user") == 1
    page.session_state[f"rollouts-quantity-{run.id}"] = "advantages"
    assert views.coloured(rollout["pieces"], rollout["advantages"], signed=True) in html(settled(page.run()))
    assert page.dataframe[-1].value["Component"].tolist() == ["ended", "helpful"]


def test_the_chosen_row_stays_chosen(app, run):
    page = app("rollouts", id=run.id)
    page.session_state[f"rollouts-chosen-{run.id}"] = (12, 2)
    synthetic_rollouts.write(run, 13)
    settled(page.run())
    assert "#### Step 12 · rollout 2" in words(page)
    assert listed(page)[0] == (13, 0)
    assert page.session_state[f"rollouts-table-{run.id}"]["selection"]["rows"] == [18]


def test_a_step_sampled_again(app, run):
    page = app("rollouts", id=run.id)
    page.session_state[f"rollouts-chosen-{run.id}"] = (12, 15)
    synthetic_rollouts.write(run, 12, prompts=1)
    assert "is no longer there" in words(settled(page.run()))


def test_follow_a_prompt(app, run):
    page = app("rollouts", id=run.id)
    page.session_state[f"tab-rollout-{run.id}"] = tab(page, "Follow")
    settled(page.run())
    assert "**48** answers at **12** steps" in words(page)
    assert "The newest 40 of 48 answers" in words(page)
    assert page.text[0].value == rollouts.one(run, 12, 3)["response"]


def test_compare_two_steps(app, run):
    page = app("rollouts", id=run.id)
    page.session_state[f"tab-rollouts-{run.id}"] = tab(page, "Compare")
    settled(page.run())
    assert "**4** prompts in both" in words(page)
    assert [item.value for item in page.text][1:3] == [rollouts.one(run, step, 0)["response"] for step in (1, 12)]
    by_label(page.selectbox, "Before: step").set_value(7).run()
    assert settled(page).text[1].value == rollouts.one(run, 7, 0)["response"]


def test_steps_without_a_prompt_in_common(app, runs):
    run = synthetic_rollouts.make(runs, steps=1)
    page = app("rollouts", id=run.id)
    page.session_state[f"tab-rollouts-{run.id}"] = tab(page, "Compare")
    assert "No other step answered a prompt of step 1" in words(settled(page.run()))


def test_a_damaged_file_is_named(app, run):
    (rollouts.folder(run) / "5.parquet").write_bytes(b"PAR1 torn")
    page = app("rollouts", id=run.id)
    assert "`5.parquet`" in page.warning[0].value
    assert "of 176 rollouts" in words(page)


def test_rewards_that_are_no_numbers(app, runs):
    run = synthetic.make(runs, steps=1)
    made = [
        {**record, "reward": float("nan"), "kl": None, "logprobs": [float("nan")] * record["response_tokens"]}
        for record in synthetic_rollouts.records(1)
    ]
    rollouts.write(run, 1, made)
    page = app("rollouts", id=run.id)
    assert by_label(page.metric, "Reward").value == "nan"
    assert "kl_sum" not in page.dataframe[0].value
