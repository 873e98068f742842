"""Each page, through the app's own frame: what it shows, and what its buttons do. (Charts and components: tests/browser.)"""

import time

import pytest
import yaml
from streamlit.testing.v1 import AppTest

from backends.base import Survey
from tests.app import synthetic, synthetic_rollouts
from tests.app.conftest import APP
from tests.machines.test_cluster import sample
from workbench import api
from workbench.machines.usage import Cluster
from workbench.rundir import store
from workbench.rundir.events import EventWriter
from workbench.rundir.files import ByteCursor
from workbench.rundir.store import State
from workbench.settings import spec
from workbench.views import text


@pytest.fixture
def app(runs):
    """Open a page with a query; whatever it shows, it raises nothing."""

    def open_page(name: str, **query: str) -> AppTest:
        page = AppTest.from_file(str(APP / "main.py"), default_timeout=240).run()
        page.query_params.clear()
        for key, value in query.items():
            page.query_params[key] = value
        return settled(page.switch_page(f"pages/{name}.py").run())

    return open_page


def settled(page: AppTest) -> AppTest:
    assert not page.exception, [error.value for error in page.exception]
    return page


def on_tab(page: AppTest, run: store.RunDir, name: str) -> AppTest:
    page.session_state[f"tab-{run.id}"] = next(tab.label for tab in page.tabs if tab.label.endswith(name))
    return settled(page.run())


def words(page: AppTest) -> str:
    elements = (page.markdown, page.caption, page.info, page.error, page.warning, page.success, page.code, page.text)
    return "\n".join(str(item.value) for kind in elements for item in kind)


def by_label(elements, label):
    return next(item for item in elements if item.label == label)


class TestRuns:
    def test_empty_tells_a_newcomer_what_to_do(self, app):
        page = app("runs")
        assert "No runs yet" in words(page)
        assert "workbench run experiment=dpo_demo" in words(page)
        assert not page.dataframe

    def test_lists_every_run_newest_first(self, app, runs):
        synthetic.gallery(runs)
        table = app("runs").dataframe[0].value
        by_name = table.set_index("name")
        assert list(table["name"]) == [api.get(run.id).spec.name for run in store.list_runs(runs)]
        assert by_name.loc["dpo-demo", "state"] == ["Running"]
        assert by_name.loc["dpo-demo", "progress"] == pytest.approx(37)
        assert by_name.loc["dpo-demo", "time"] == f"{text.duration(252 * synthetic.PACE_S)} left"
        assert by_name.loc["dpo-demo", "loss"] == text.number(synthetic.step_metrics(148, 1)["loss"])
        assert by_name.loc["dpo-lr-too-high", "loss"] == "nan"
        assert len(by_name.loc["dpo-demo", "curve"]) > 30
        assert ":material/stop_circle: Stop" in by_name.loc["dpo-demo", "actions"]
        assert ":material/resume: Resume" in by_name.loc["dpo-lr-too-high", "actions"]
        assert len(by_name.loc["dpo-beta-03", "actions"]) == 2

    def test_the_selection_moves_with_its_runs(self, app, runs):
        """A run that is launched meanwhile is the newest, and every other one has another place."""
        for name in ("one", "two"):
            synthetic.make(runs, name=name, steps=3)
        page = app("runs")
        before = list(page.session_state["runs-shown"])
        page.session_state["runs-table"] = {"selection": {"rows": [0]}}
        settled(page.run())
        synthetic.make(runs, name="three", steps=3).path.rename(runs / "99990101-000000-three-0000")
        settled(page.run())
        shown = page.session_state["runs-shown"]
        assert shown == ["99990101-000000-three-0000", *before]
        assert [shown[row] for row in page.session_state["runs-table"]["selection"]["rows"]] == [before[0]]
        page.text_input(key="runs-search").set_value("three").run()
        assert page.session_state["runs-table"]["selection"]["rows"] == []

    def test_search_and_filter(self, app, runs):
        synthetic.gallery(runs)
        page = app("runs")
        by_label(page.text_input, "Search").set_value("ipo stop").run()
        assert "No run matches" in words(settled(page))
        by_label(page.text_input, "Search").set_value("IPO").run()
        assert list(settled(page).dataframe[0].value["name"]) == ["ipo-long"]
        by_label(page.text_input, "Search").set_value("").run()
        page.session_state["runs-state"] = ["Live", "Failed"]
        assert set(settled(page.run()).dataframe[0].value["name"]) == {"dpo-demo", "sft-first", "dpo-lr-too-high"}

    def test_broken_folders_do_not_hide_the_others(self, app, runs):
        good = synthetic.make(runs, "good", 30)
        broken = synthetic.make(runs, "broken", 5)
        broken.spec_path.chmod(0o600)
        broken.spec_path.write_text("- not\n- a mapping\n")
        broken.events_path().write_text('{"kind": "step"}\ngarbage\n')
        table = app("runs").dataframe[0].value
        assert set(table["name"]) == {"good", broken.id}
        assert good.status.step == 30

    def test_fifty_long_runs_are_listed_quickly(self, app, runs):
        for number in range(50):
            synthetic.make(runs, f"run-{number:02d}", 1000, 2000, seed=number)
        app("compare")
        began = time.process_time()
        page = app("runs")
        first_s = time.process_time() - began
        began = time.process_time()
        settled(page.run())
        again_s = time.process_time() - began
        print(f"50 runs of 1,000 steps: first {first_s:.2f} s, refreshed {again_s:.2f} s")
        assert len(page.dataframe[0].value) == 50
        assert first_s < 10
        assert again_s < 3


class TestRun:
    def test_headline_of_a_running_run(self, app, runs):
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

    def test_profile_of_an_online_run(self, app, runs):
        run = synthetic_rollouts.make(runs, 8)
        page = on_tab(app("run", id=run.id), run, "Profile")
        shown = {metric.label: metric.value for metric in page.metric}
        assert shown["Refit of the weights"] == "0.02 ms"
        assert {"A step", "Decode, tokens / s", "Prefill, tokens / s", "Decoder's slots in use"} <= shown.keys()
        phases = page.dataframe[0].value
        assert phases["Phase"].tolist()[:2] == ["Generate", "　· Refit of the engine's weights"]
        assert page.dataframe[1].value["Endpoint"].tolist() == ["critic_train", "critic_infer", "reward_model"]
        assert "PPO" in words(page)

    def test_alarms_that_sound_stand_out_and_those_that_are_over_are_folded(self, app, runs):
        run = synthetic_rollouts.make(runs, 8)
        actor, driver = EventWriter(run), EventWriter(run, "driver")
        actor.write("alarm", step=5, name="length", message="answers grow", rollouts=[3])
        actor.write("alarm_over", step=6, name="length")
        actor.write("alarm", step=8, name="KL blow-up", message="61.2 nats", rollouts=[1, 9])
        driver.write("alarm", step=8, name="hang", message="rank 1 does not beat", ranks=["actor 1"], seconds=300.0)
        page = app("run", id=run.id)
        assert [error.value.partition(" at ")[0] for error in page.error] == ["**Hang**", "**KL blow\\-up**"]
        assert [box.label for box in page.expander] == ["1 alarm before"]
        assert [button.label for button in page.button if "Rollout" in button.label] == ["Rollout 1", "Rollout 9"]
        driver.write("alarm_over", name="hang", seconds=310.0)
        assert "Hang" not in "".join(error.value for error in settled(page.run()).error)
        by_label(page.button, "Rollout 9").click().run()
        assert "Step 8 · rollout 9" in words(settled(page))

    def test_controls_ask_the_run_and_tell_what_was_asked_for(self, app, runs):
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
        assert by_label(page.button, "Go on")

    @pytest.mark.parametrize(
        ("objective", "titles"), [("ranking", ["Calibration", "Scores", "Length"]), ("regression", ["helpfulness", "verbosity"])]
    )
    def test_diagnostics_of_a_reward_model(self, app, runs, objective, titles):
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

    def test_newest_live_run_without_an_id(self, app, runs):
        synthetic.make(runs, "z-ended", 5, 5, State.COMPLETED)
        live = synthetic.make(runs, "a-live", 5, 9)
        assert live.id in words(app("run"))

    def test_a_damaged_event_file_is_said(self, app, runs):
        run = synthetic.make(runs, steps=5)
        with run.events_path().open("a") as file:
            file.write("garbage\n")
        page = app("run", id=run.id)
        assert "no JSON at byte" in words(page)
        assert "Loss" in [metric.label for metric in page.metric]

    def test_no_run_at_all(self, app):
        assert "No runs yet" in words(app("run"))

    @pytest.mark.parametrize("name", ["nobody", "../etc", "<script>alert(1)</script>"])
    def test_unknown_id(self, app, runs, name):
        synthetic.make(runs, "other", 5)
        page = app("run", id=name)
        assert "There is no run" in page.error[0].value
        assert not page.metric

    def test_start_up_progress(self, app, runs):
        synthetic.gallery(runs)
        run = next(run for run in store.list_runs(runs) if "sft-first" in run.id)
        page = app("run", id=run.id)
        bar = page.get("progress")[0].proto
        assert bar.value == 26
        assert bar.text.startswith("Importing the weights of smollm2")
        assert "71 of 272" in bar.text

    def test_failure_reason_and_log_are_prominent(self, app, runs):
        synthetic.gallery(runs)
        run = next(run for run in store.list_runs(runs) if "too-high" in run.id)
        page = app("run", id=run.id)
        assert "the loss is not finite at step 37" in page.error[0].value
        assert "FloatingPointError" in page.code[0].value
        assert str(run.logs / "actor-0.1.log") in words(page)
        assert [button.label for button in page.button] == ["Resume", "Clone"]

    def test_a_damaged_checkpoint_is_told_of(self, app, runs):
        run = synthetic.make(runs, steps=10)
        EventWriter(run).write("warning", message="checkpoint 4 is damaged; the run goes on from checkpoint 2")
        page = app("run", id=run.id)
        assert "Checkpoint 4 is damaged; the run goes on from checkpoint 2" in page.warning[0].value

    def test_stop_asks_the_run(self, app, runs):
        run = synthetic.make(runs, steps=10)
        page = app("run", id=run.id)
        by_label(page.button, "Stop").click().run()
        assert not page.exception
        assert run.status.state == State.STOPPING
        assert "stop" in (run.path / "control.jsonl").read_text()

    def test_kill_needs_a_second_press(self, app, runs, monkeypatch):
        killed = []
        monkeypatch.setattr(api.Run, "kill", lambda run: killed.append(run.id))
        run = synthetic.make(runs, steps=10)
        page = app("run", id=run.id)
        assert "End the run at once?" in words(page)
        by_label(page.button, "Kill now").click().run()
        assert killed == [run.id]

    def test_what_a_button_cannot_do_is_said(self, app, runs, monkeypatch):
        def refuse(run):
            raise ValueError("the driver runs on host far-away")

        monkeypatch.setattr(api.Run, "stop", refuse)
        page = app("run", id=synthetic.make(runs, steps=10).id)
        by_label(page.button, "Stop").click().run()
        assert "far-away" in words(settled(page))

    def test_clone_opens_the_form(self, app, runs):
        run = synthetic.make(runs, "mine", 10, overrides=("algorithm.beta=0.37",))
        page = app("run", id=run.id)
        by_label(page.button, "Clone").click().run()
        assert by_label(settled(page).number_input, "Beta").value == 0.37

    def test_answers_before_and_after(self, app, runs):
        run = synthetic.make(runs, steps=60)
        page = on_tab(app("run", id=run.id), run, "Answers")
        shown = [item.value for item in page.text]
        assert shown[0] == synthetic.PROMPTS[0]
        assert shown[1] == synthetic.validation(0)["samples"][0]["response"]
        assert shown[2] == synthetic.validation(60)["samples"][0]["response"]
        by_label(page.selectbox, "Before: step").set_value(30).run()
        assert page.text[1].value == synthetic.validation(30)["samples"][0]["response"]

    def test_one_prompt_over_the_steps(self, app, runs):
        run = synthetic.make(runs, steps=30)
        page = on_tab(app("run", id=run.id), run, "Answers")
        page.session_state[f"view-{run.id}"] = "One prompt over the steps"
        settled(page.run())
        by_label(page.selectbox, "Prompt").set_value(synthetic.PROMPTS[1]).run()
        assert [item.value for item in settled(page).text] == [synthetic.validation(n)["samples"][1]["response"] for n in (30, 20, 10, 0)]

    def test_a_pause_is_said_at_the_top(self, app, runs):
        run = synthetic.make(runs, steps=20)
        EventWriter(run).write("phase", message="paused at step 20")
        assert "Paused at step 20" in words(app("run", id=run.id))
        EventWriter(run).write("phase", message="")
        assert "Paused at" not in words(app("run", id=run.id))

    def test_a_resumed_run_that_starts_says_how_far_it_is(self, app, runs):
        run = synthetic.make(runs, steps=20)
        run.update(state=State.STARTING, message="loading the model", attempt=2)
        page = app("run", id=run.id)
        assert any("Loading the model" in item.proto.text for item in page.get("progress"))

    def test_log(self, app, runs):
        run = synthetic.make(runs, steps=60)
        page = on_tab(app("run", id=run.id), run, "Log")
        assert "step 60:" in page.code[0].value
        by_label(page.text_input, "Only lines with").set_value("STEP 59").run()
        assert page.code[0].value.startswith("step 59:")

    def test_checkpoints_are_the_complete_ones(self, app, runs):
        run = synthetic.make(runs, steps=60)
        (run.checkpoints / "80").mkdir()
        page = on_tab(app("run", id=run.id), run, "Checkpoints")
        assert list(page.dataframe[0].value["Step"]) == ["60", "40"]
        assert f"workbench export {run.id} --out exports/{run.id}" in words(page)

    def test_settings_give_the_same_run_again(self, app, runs):
        run = synthetic.make(runs, "beta three", 5, overrides=("algorithm.beta=0.3", "data.limit=7"))
        page = on_tab(app("run", id=run.id), run, "Settings")
        command = page.code[0].value
        assert page.code[1].value == run.spec_path.read_text().strip()
        assert composed(command) == api.Run(run).spec


def composed(command: str):
    import shlex

    program, verb, *overrides = shlex.split(command)
    assert (program, verb) == ("workbench", "run")
    return spec.compose(overrides)


class TestLaunch:
    def test_has_every_field_of_the_spec(self, app):
        page = app("launch")
        help_texts = "\n".join(item.help or "" for kind in (page.number_input, page.text_input, page.selectbox, page.toggle) for item in kind)
        help_texts += "\n".join(str(item.proto.help) for item in page.get("button_group"))
        tree = spec.compose(["experiment=dpo_demo"]).model_dump()
        from workbench.views.tables import leaves

        for key in leaves(tree).keys() - {"algorithm.name", "backend.name"}:
            assert f"`{key}`" in help_texts, key

    def test_starts_from_the_experiment_and_is_valid(self, app):
        page = app("launch")
        assert yaml.safe_load(page.code[1].value) == spec.compose(["experiment=dpo_demo"]).model_dump(mode="json")
        assert page.code[0].value == "workbench run experiment=dpo_demo"
        assert not by_label(page.button, "Launch run").disabled

    def test_a_change_is_in_the_command_line(self, app):
        page = app("launch")
        by_label(page.number_input, "Beta").set_value(0.3).run()
        by_label(page.text_input, "Name").set_value("it's mine").run()
        by_label(page.number_input, "Limit").set_value(64).run()
        by_label(page.selectbox, "Recompute").set_value("full").run()
        experiment = composed(settled(page).code[0].value)
        assert (experiment.algorithm.beta, experiment.name, experiment.data.limit, experiment.model.recompute) == (0.3, "it's mine", 64, "full")

    def test_choosing_another_algorithm_brings_its_fields(self, app):
        page = app("launch")
        assert any(item.label == "Beta" for item in page.number_input)
        by_label(page.selectbox, "Algorithm").set_value("sft").run()
        settled(page)
        assert not any(item.label == "Beta" for item in page.number_input)
        assert by_label(page.number_input, "Learning rate").value == 3e-5
        assert composed(page.code[0].value).algorithm.name == "sft"

    def test_slurm_has_its_fields_and_the_servers_nodes(self, app):
        page = app("launch")
        by_label(page.selectbox, "Backend").set_value("slurm").run()
        by_label(page.text_input, "Constraint").set_value("h100&ib").run()
        next(item for item in page.number_input if "`backend.reward.nodes`" in item.help).set_value(2).run()
        next(item for item in page.multiselect if "`backend.modules`" in item.help).set_value(["cuda/12", "nccl"]).run()
        backend = composed(settled(page).code[0].value).backend
        assert (backend.name, backend.constraint, backend.reward.nodes, backend.critic.nodes) == ("slurm", "h100&ib", 2, 0)
        assert backend.modules == ("cuda/12", "nccl")
        assert not by_label(page.button, "Launch run").disabled

    def test_a_choice_keeps_what_was_typed_elsewhere(self, app):
        page = app("launch")
        by_label(page.number_input, "Seed").set_value(7).run()
        by_label(page.selectbox, "Algorithm").set_value("sft").run()
        assert by_label(page.number_input, "Seed").value == 7

    @pytest.mark.parametrize(
        ("label", "value", "key", "what"),
        [
            ("Beta", 0.0, "algorithm.beta", "greater than 0"),
            ("Label smoothing", 0.2, "algorithm", "cdpo needs a smoothing"),
            ("Dropout", 1.0, "model.lora.dropout", "less than 1"),
        ],
    )
    def test_a_problem_is_beside_its_field(self, app, label, value, key, what):
        page = app("launch")
        by_label(page.number_input, label).set_value(value).run()
        beside = [item.value for item in settled(page).caption if ":red[" in item.value]
        assert len(beside) == 1
        assert what in beside[0]
        assert f"`{key}`" in page.error[0].value
        assert by_label(page.button, "Launch run").disabled

    def test_a_function_that_is_not_there(self, app):
        page = app("launch")
        by_label(page.selectbox, "Algorithm").set_value("grpo").run()
        by_label(page.text_area, "Rewards").set_value('{"a": {"program": "maths"}}').run()
        assert "did you mean 'math'?" in settled(page).error[0].value
        assert by_label(page.button, "Launch run").disabled

    def test_a_number_out_of_bounds_is_a_problem_not_the_one_before(self, app):
        page = app("launch")
        by_label(page.number_input, "Learning rate").set_value(99.0).run()
        assert "less than or equal to 1" in settled(page).error[0].value
        assert by_label(page.button, "Launch run").disabled

    def test_an_algorithm_that_lacks_something_has_a_short_command_line(self, app):
        page = app("launch")
        by_label(page.selectbox, "Algorithm").set_value("ppo").run()
        assert "such as" in settled(page).error[0].value
        assert page.code[0].value == "workbench run experiment=dpo_demo algorithm=ppo"
        by_label(page.text_area, "Rewards").set_value("{short: {program: brevity}}").run()
        assert composed(settled(page).code[0].value).algorithm.rewards["short"].program == "brevity"

    def test_a_file_that_is_not_there(self, app):
        page = app("launch")
        by_label(page.text_input, "Train").set_value("/nowhere/rows.jsonl").run()
        by_label(page.text_input, "Source").set_value("x" * 100_000).run()
        by_label(page.number_input, "Ranks per node").set_value(2).run()
        assert "there is no file /nowhere/rows" in settled(page).error[0].value

    def test_a_required_text_that_is_empty(self, app):
        page = app("launch")
        by_label(page.text_input, "Train").set_value("").run()
        assert "at least 1 character" in settled(page).error[0].value

    def test_launch_submits_and_opens_the_run(self, app, runs, monkeypatch):
        submitted = []

        def submit(experiment):
            submitted.append(experiment)
            return api.Run(synthetic.make(runs, experiment.name, 0, 100, State.QUEUED))

        monkeypatch.setattr(api, "submit", submit)
        page = app("launch")
        by_label(page.number_input, "Beta").set_value(0.25).run()
        by_label(page.button, "Launch run").click().run()
        assert submitted[0].algorithm.beta == 0.25
        assert "Queued" in words(settled(page))

    def test_a_backend_that_cannot_start_is_said(self, app, monkeypatch):
        def submit(experiment):
            raise OSError("no space left on device")

        monkeypatch.setattr(api, "submit", submit)
        page = app("launch")
        by_label(page.button, "Launch run").click().run()
        assert "no space left on device" in settled(page).error[0].value

    def test_clone_holds_the_runs_settings(self, app, runs):
        overrides = ("algorithm=sft", "algorithm.lr=0.0002", "data.limit=9", "model.lora.targets=[qkv,fc1]", "validation.every_steps=0")
        run = synthetic.make(runs, "first", 5, overrides=overrides)
        page = app("launch", clone=run.id)
        assert yaml.safe_load(page.code[1].value) == yaml.safe_load(run.spec_path.read_text())
        assert composed(page.code[0].value) == api.Run(run).spec

    @pytest.mark.parametrize("overrides", [("algorithm.objective=regression", "algorithm.attributes=[humor,brevity]"), ()])
    def test_clone_of_a_reward_model(self, app, runs, overrides):
        run = synthetic.make(runs, "scores", 5, overrides=("algorithm=reward_model", *overrides))
        page = app("launch", clone=run.id)
        assert composed(page.code[0].value) == api.Run(run).spec
        assert list(by_label(page.multiselect, "Attributes").value) == list(api.Run(run).spec.algorithm.attributes)

    def test_clone_of_a_run_of_another_version_says_what_is_left_out(self, app, runs):
        run = synthetic.make(runs, "old", 5)
        run.spec_path.chmod(0o600)
        run.spec_path.write_text(run.spec_path.read_text() + "gone: 1\n")
        page = app("launch", clone=run.id)
        assert "gone" in page.warning[0].value
        assert not by_label(page.button, "Launch run").disabled

    def test_clone_of_nothing(self, app):
        assert "There is no run" in app("launch", clone="nobody").warning[0].value


class TestCompare:
    def test_differences_only(self, app, runs):
        one = synthetic.make(runs, "one", 30)
        two = synthetic.make(runs, "two", 40, overrides=("algorithm.beta=0.5",))
        page = app("compare", runs=f"{one.id},{two.id}")
        standing, diff = (frame.value for frame in page.dataframe)
        assert list(standing["Steps"]) == ["30", "40"]
        assert list(diff.index) == ["name", "algorithm.beta"]
        assert list(diff.loc["algorithm.beta"]) == ["0.1", "0.5"]

    def test_a_held_out_metric(self, app, runs):
        synthetic.make(runs, "one", 30)
        page = app("compare")
        by_label(page.selectbox, "Metric").set_value(("held", "accuracy")).run()
        assert settled(page).dataframe[0].value["Last"][0] == text.number(synthetic.validation(30)["metrics"]["accuracy"])

    def test_begins_with_runs_that_have_made_steps(self, app, runs):
        run = synthetic.make(runs, "one", 30)
        store.create(runs, "z-new", synthetic.spec_yaml())
        assert app("compare").multiselect[0].value == [run.id]

    def test_runs_without_steps(self, app, runs):
        store.create(runs, "new", synthetic.spec_yaml())
        assert "None of these runs has made a step yet" in words(app("compare"))

    def test_no_run(self, app):
        assert "No runs yet" in words(app("compare"))


class TestCluster:
    def test_without_slurm_it_shows_this_machine(self, app, runs, monkeypatch):
        monkeypatch.setattr(api, "places", lambda: ["local"])
        page = app("cluster")
        shown = {metric.label: metric.value for metric in page.metric}
        assert {"CPUs busy", "Memory busy", "My runs"} <= shown.keys()
        assert "Nothing of yours runs here" in words(page)
        assert not page.dataframe

    def test_with_slurm_nodes_queue_partitions_and_ranks(self, app, runs, monkeypatch):
        monkeypatch.setattr(api, "places", lambda: ["slurm", "local"])
        monkeypatch.setattr(api, "cluster", lambda where: sample())
        page = app("cluster")
        assert {metric.label: metric.value for metric in page.metric}["GPUs given"] == "11"
        ranks, queue, partitions = (table.value for table in page.dataframe)
        assert ranks["Process"].tolist() == ["actor 0", "actor 1"]
        assert ranks["GPU"].tolist() == [93, 0]
        assert queue["Name"].tolist() == ["sft", "dpo", "job"]
        assert partitions["Partition"].tolist() == ["h100", "all *", "cpu"]
        assert "waiting for nodes" in words(page)
        assert "down: fan" not in words(page)  # a tile's, which is html: see tests/browser

    def test_a_slurm_that_does_not_answer_is_quoted(self, app, runs, monkeypatch):
        broken = Cluster(Survey("slurm", "SLURM", time.time(), error="Unable to contact slurm controller"))
        monkeypatch.setattr(api, "places", lambda: ["slurm", "local"])
        monkeypatch.setattr(api, "cluster", lambda where: broken)
        page = app("cluster")
        assert "Unable to contact slurm controller" in page.error[0].value


class TestBeforeTheLaunch:
    def test_the_checks_on_the_cluster_are_told_and_belong_to_these_settings(self, app, runs, monkeypatch):
        asked = []
        found = [api.Finding("nodes", "error", "no node has 16 GPUs", "backend.gpus_per_node"), api.Finding("start", "ok", "at noon")]
        monkeypatch.setattr(api, "preflight", lambda experiment, on_node: asked.append((experiment.backend.name, on_node)) or found)
        page = app("launch")
        assert not [button for button in page.button if button.label == "Check on the cluster"]
        by_label(page.selectbox, "Backend").set_value("slurm").run()
        assert by_label(settled(page).multiselect, "Modules").value == []
        by_label(page.button, "Check on the cluster").click().run()
        assert asked == [("slurm", False)]
        assert "no node has 16 GPUs" in words(settled(page))
        by_label(page.number_input, "Num nodes").set_value(2).run()
        assert "no node has 16 GPUs" not in words(settled(page))


def test_a_run_that_waits_again_says_why(app, runs):
    run = synthetic.make(runs, "dpo-demo", 20, 200)
    run.update(state=State.QUEUED, message="SLURM job 7: waiting for nodes (Resources); expected to start 2026-11-25 22:00:00", job=None)
    assert "Waiting to go on: SLURM job 7: waiting for nodes" in words(app("run", id=run.id)).replace("\\", "")


def test_logs_are_named_by_what_they_are_of():
    assert [text.log_title(name) for name in ("actor-0.2.log", "driver.1.log", "slurm.17.0.log", "slurm.17.2.log", "pbs.1.log")] == [
        "actor 0 · attempt 2",
        "driver · attempt 1",
        "SLURM job 17",
        "SLURM job 17 · restart 2",
        "pbs · attempt 1",
    ]
