"""The Run page: what it shows, and what its buttons do. (Charts and components: tests/browser.)"""

import time

import pytest

from tests.app import synthetic, synthetic_rollouts
from tests.app.pages import by_label, composed, on_tab, settled, words
from workbench import api
from workbench.rundir import listing
from workbench.rundir.events import EventWriter
from workbench.rundir.files import ByteCursor
from workbench.rundir.store import State
from workbench.views import text


def test_headline_of_a_running_run(app, runs):
    run = synthetic.make(runs, "dpo-demo", 60, 200)
    page = app("run", id=run.id)
    shown = {metric.label: metric.value for metric in page.metric}
    last = synthetic.step_metrics(60)
    assert shown == {
        "Loss": text.number(last["loss"]),
        "Held-out accuracy": f"{synthetic.validation(60)['metrics']['accuracy']:.1%}",
        "Reward margin": text.number(last["rewards_margin"]),
        "Tokens / s": text.number(last["tokens_per_s"]),
        "Step": "60",
        "Time left": "2 m 23 s",
    }
    assert "Running" in words(page)
    assert [tab.label.split(": ")[1] for tab in page.tabs] == ["Curves", "Answers", "Profile", "Log", "Checkpoints", "Settings", "Controls"]


def test_a_reference_that_moves_has_a_tab(app, runs):
    run = synthetic.make(runs, "spin-demo", 3, 6)
    EventWriter(run).write("reference", step=2, version=1, digest="0123456789abcdef")
    EventWriter(run).write("phase", message="the opponent of iteration 2 answers", done=4, total=8)
    page = on_tab(app("run", id=run.id), run, "References")
    (table,) = page.dataframe
    assert table.value[["Reference", "Weights", "From step"]].to_numpy().tolist() == [[1, "0123456789abcdef", 3]]
    assert "The opponent of iteration 2 answers · 4 of 8" in [bar.text for bar in page.get("progress")]


def test_the_cell_that_opens_the_run_in_a_notebook(app, runs):
    run = synthetic.make(runs, "dpo-demo", 5, 5, State.COMPLETED)
    cells = [block.value for block in app("run", id=run.id).code if "attach" in block.value]
    assert cells == [f'import workbench as wb\n\nrun = wb.attach("{run.id}")']
    assert f"WORKBENCH_RUNS={runs}" in words(app("run", id=run.id))


def test_profile_of_an_online_run(app, runs):
    run = synthetic_rollouts.make(runs, 8)
    page = on_tab(app("run", id=run.id), run, "Profile")
    shown = {metric.label: metric.value for metric in page.metric}
    assert shown["Refit of the weights"] == "0.02 ms"
    assert {"A step", "Decode, tokens / s", "Prefill, tokens / s", "Decoder's slots in use"} <= shown.keys()
    phases = page.dataframe[0].value
    assert phases["Phase"].tolist()[:2] == ["Generate", "　· Refit of the engine's weights"]
    assert page.dataframe[1].value["Endpoint"].tolist() == ["critic_train", "critic_infer", "reward_model"]
    assert "PPO" in words(page)


def test_alarms_that_sound_stand_out_and_those_that_are_over_are_folded(app, runs):
    run = synthetic_rollouts.make(runs, 8)
    actor, driver = EventWriter(run), EventWriter(run, "driver")
    actor.write("alarm", step=5, name="length", message="answers grow", rollouts=[3])
    actor.write("alarm_over", step=6, name="length")
    actor.write("alarm", step=8, name="KL blow-up", message="61.2 nats", rollouts=[1, 9])
    driver.write("alarm", step=8, name="hang", message="rank 1 does not beat", ranks=["actor 1"], seconds=300.0)
    page = app("run", id=run.id)
    assert [error.value.partition(" at ")[0] for error in page.error] == ["**Hang**", "**KL blow\\-up**"]
    assert [box.label for box in page.expander] == ["1 past alarm"]
    assert [button.label for button in page.button if "Rollout" in button.label] == ["Rollout 1", "Rollout 9"]
    driver.write("alarm_over", name="hang", seconds=310.0)
    assert "Hang" not in "".join(error.value for error in settled(page.run()).error)
    by_label(page.button, "Rollout 9").click().run()
    assert "Step 8 · rollout 9" in words(settled(page))


def test_controls_ask_the_run_and_tell_what_was_asked_for(app, runs):
    run = synthetic_rollouts.make(runs, 8)
    EventWriter(run).write("control", step=4, request="set", values={"kl_coefficient": 0.05})
    page = on_tab(app("run", id=run.id), run, "Controls")
    assert by_label(page.number_input, "KL coefficient").value == 0.05
    by_label(page.number_input, "Temperature").set_value(0.6)
    by_label(page.button, "Apply at the next step").click().run()
    settled(page)
    by_label(page.button, "Pause").click().run()
    assert [request["request"] for request in run.requests(ByteCursor())] == ["set", "pause"]
    assert run.requests(ByteCursor())[0]["values"] == {"temperature": 0.6}
    rows = settled(page).dataframe[0].value
    assert rows[["Step", "Change"]].to_numpy().tolist() == [
        ["next", "Pause"],
        ["next", "Temperature: 0.8 → 0.6"],
        ["4", "KL coefficient: 0.02 → 0.05"],
    ]
    assert by_label(page.button, "Resume")


@pytest.mark.parametrize(("objective", "titles"), [("ranking", ["Calibration", "Scores", "Length"]), ("regression", ["helpfulness", "verbosity"])])
def test_diagnostics_of_a_reward_model(app, runs, objective, titles):
    run = synthetic.make(runs, "scores", 0, 40, overrides=("algorithm=reward_model", f"algorithm.objective={objective}"))
    found = synthetic.reward_validation(10, objective)
    synthetic.append(run, time.time(), "validation", **found)
    page = app("run", id=run.id)
    assert page.tabs[-1].label.endswith("Diagnostics")
    page = on_tab(page, run, "Diagnostics")
    assert [title for title in titles if f"**{title}**" in words(page)] == titles
    assert "Held-out rows at step 10" in words(page)
    name = "ece" if objective == "ranking" else "mae_verbosity"
    assert text.number(found["metrics"][name], 3) in words(page)


def test_newest_live_run_without_an_id(app, runs):
    synthetic.make(runs, "z-ended", 5, 5, State.COMPLETED)
    live = synthetic.make(runs, "a-live", 5, 9)
    assert live.id in words(app("run"))


def test_a_damaged_event_file_is_said(app, runs):
    run = synthetic.make(runs, steps=5)
    with run.events_path().open("a") as file:
        file.write("garbage\n")
    page = app("run", id=run.id)
    assert "no JSON at byte" in words(page)
    assert "Loss" in [metric.label for metric in page.metric]


def test_no_run_at_all(app):
    assert "No runs yet" in words(app("run"))


@pytest.mark.parametrize("name", ["nobody", "../etc", "<script>alert(1)</script>"])
def test_unknown_id(app, runs, name):
    synthetic.make(runs, "other", 5)
    page = app("run", id=name)
    assert "There is no run" in page.error[0].value
    assert not page.metric


def test_start_up_progress(app, runs):
    synthetic.gallery(runs)
    run = next(run for run in listing.list_runs(runs) if "sft-first" in run.id)
    page = app("run", id=run.id)
    bar = page.get("progress")[0].proto
    assert bar.value == 26
    assert bar.text.startswith("Importing the weights of smollm2")
    assert "71 of 272" in bar.text


def test_failure_reason_and_log_are_prominent(app, runs):
    synthetic.gallery(runs)
    run = next(run for run in listing.list_runs(runs) if "too-high" in run.id)
    page = app("run", id=run.id)
    assert "the loss is not finite at step 37" in page.error[0].value
    assert any("FloatingPointError" in block.value for block in page.code)
    assert str(run.logs / "actor-0.1.log") in words(page)
    assert [button.label for button in page.button] == ["Resume", "Clone"]


def test_a_damaged_checkpoint_is_told_of(app, runs):
    run = synthetic.make(runs, steps=10)
    EventWriter(run).write("warning", message="checkpoint 4 is damaged; the run continues from checkpoint 2")
    page = app("run", id=run.id)
    assert "Checkpoint 4 is damaged; the run continues from checkpoint 2" in page.warning[0].value


def test_stop_asks_the_run(app, runs):
    run = synthetic.make(runs, steps=10)
    page = app("run", id=run.id)
    by_label(page.button, "Stop").click().run()
    assert not page.exception
    assert run.status.state == State.STOPPING
    assert "stop" in (run.path / "control.jsonl").read_text()


def test_kill_needs_a_second_press(app, runs, monkeypatch):
    killed = []
    monkeypatch.setattr(api.Run, "kill", lambda run: killed.append(run.id))
    run = synthetic.make(runs, steps=10)
    page = app("run", id=run.id)
    assert "Kill the run?" in words(page)
    by_label(page.button, "Kill now").click().run()
    assert killed == [run.id]


def test_what_a_button_cannot_do_is_said(app, runs, monkeypatch):
    def refuse(run):
        raise ValueError("the driver runs on host far-away")

    monkeypatch.setattr(api.Run, "stop", refuse)
    page = app("run", id=synthetic.make(runs, steps=10).id)
    by_label(page.button, "Stop").click().run()
    assert "far-away" in words(settled(page)).replace("\\", "")


def test_clone_opens_the_form(app, runs):
    run = synthetic.make(runs, "mine", 10, overrides=("algorithm.beta=0.37",))
    page = app("run", id=run.id)
    by_label(page.button, "Clone").click().run()
    assert by_label(settled(page).number_input, "Beta").value == 0.37


def test_answers_before_and_after(app, runs):
    run = synthetic.make(runs, steps=60)
    page = on_tab(app("run", id=run.id), run, "Answers")
    shown = [item.value for item in page.text]
    assert shown[0] == synthetic.PROMPTS[0]
    assert shown[1] == synthetic.validation(0)["samples"][0]["response"]
    assert shown[2] == synthetic.validation(60)["samples"][0]["response"]
    by_label(page.selectbox, "Before: step").set_value(30).run()
    assert page.text[1].value == synthetic.validation(30)["samples"][0]["response"]


def test_one_prompt_over_the_steps(app, runs):
    run = synthetic.make(runs, steps=30)
    page = on_tab(app("run", id=run.id), run, "Answers")
    page.session_state[f"view-{run.id}"] = "One prompt over the steps"
    settled(page.run())
    by_label(page.selectbox, "Prompt").set_value(synthetic.PROMPTS[1]).run()
    assert [item.value for item in settled(page).text] == [synthetic.validation(n)["samples"][1]["response"] for n in (30, 20, 10, 0)]


def test_a_pause_is_said_at_the_top(app, runs):
    run = synthetic.make(runs, steps=20)
    EventWriter(run).write("phase", message="paused at step 20")
    assert "Paused at step 20" in words(app("run", id=run.id))
    EventWriter(run).write("phase", message="")
    assert "Paused at" not in words(app("run", id=run.id))


def test_a_resumed_run_that_starts_says_how_far_it_is(app, runs):
    run = synthetic.make(runs, steps=20)
    run.update(state=State.STARTING, message="loading the model", attempt=2)
    page = app("run", id=run.id)
    assert any("Loading the model" in item.proto.text for item in page.get("progress"))


def test_log(app, runs):
    run = synthetic.make(runs, steps=60)
    page = on_tab(app("run", id=run.id), run, "Log")
    assert "step 60:" in page.code[1].value
    by_label(page.text_input, "Filter lines").set_value("STEP 59").run()
    assert page.code[1].value.startswith("step 59:")


def test_checkpoints_are_the_complete_ones(app, runs):
    run = synthetic.make(runs, steps=60)
    (run.checkpoints / "80").mkdir()
    page = on_tab(app("run", id=run.id), run, "Checkpoints")
    assert list(page.dataframe[0].value["Step"]) == ["60", "40"]
    assert f"workbench export {run.id} --out exports/{run.id}" in words(page)


def test_settings_give_the_same_run_again(app, runs):
    run = synthetic.make(runs, "beta three", 5, overrides=("algorithm.beta=0.3", "data.limit=7"))
    page = on_tab(app("run", id=run.id), run, "Settings")
    command = page.code[1].value
    assert page.code[2].value == run.spec_path.read_text().strip()
    assert composed(command) == api.Run(run).spec


def test_a_run_that_waits_again_says_why(app, runs):
    run = synthetic.make(runs, "dpo-demo", 20, 200)
    run.update(state=State.QUEUED, message="SLURM job 7: waiting for nodes (Resources); expected to start 2026-11-25 22:00:00", job=None)
    assert "Waiting to continue: SLURM job 7: waiting for nodes" in words(app("run", id=run.id)).replace("\\", "")
