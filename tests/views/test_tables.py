"""Rows of lists and comparisons, and the headline of a run."""

from tests.views.events import step
from workbench.rundir.store import State, Status
from workbench.views import History, tables


def test_config_diff_has_only_what_differs():
    one = {"lr": 0.1, "model": {"source": "a", "lora": {"rank": 16}}, "limit": None, "on": True}
    two = {"lr": 0.1, "model": {"source": "b", "lora": {"rank": 16, "alpha": 32}}, "limit": 5, "on": False}
    diff = tables.config_diff({"one": one, "two": two})
    assert diff.to_dict("index") == {
        "model.source": {"one": "a", "two": "b"},
        "limit": {"one": "null", "two": "5"},
        "on": {"one": "true", "two": "false"},
        "model.lora.alpha": {"one": "–", "two": "32"},
    }
    assert tables.config_diff({"one": one, "same": dict(one)}).empty


def test_followed_prompts():
    history = History()
    for at in (0, 10):
        history.extend([{"kind": "validation", "time": 1.0 + at, "step": at, "metrics": {}, "samples": [{"prompt": "p", "response": f"r{at}"}]}])
    assert tables.followed(history.validations) == {"p": {0: "r0", 10: "r10"}}


def test_references_with_what_was_measured_against_each():
    """Moved after steps 0 and 2. The validation of step 2 is against the first; after a resume from step 2 the second moves again, to the same weights."""
    history = History()
    history.extend([{"kind": "state", "time": 0.0, "step": 0, "total_steps": 4}])
    history.extend([{"kind": "reference", "time": 0.5, "step": 0, "version": 1, "digest": "aa"}, step(1, 1.0), step(2, 2.0)])
    history.extend([{"kind": "validation", "time": 2.5, "step": 2, "metrics": {"rewards_margin": 0.5, "opponent_win_rate": 0.25}}])
    second = {"kind": "reference", "time": 3.0, "step": 2, "version": 2, "digest": "bb"}
    history.extend([second, step(3, 4.0), {"kind": "state", "time": 9.0, "step": 2, "total_steps": 4}])
    assert [each["version"] for each in history.references] == [1, 2]
    history.extend([second])
    first, last = tables.references(history)
    assert first == {
        "Reference": 1,
        "Weights": "aa",
        "From step": 1,
        "Held-out reward margin": 0.5,
        "Held-out opponent's wins": 0.25,
        "Held-out log-probability: chosen": None,
    }
    assert (last["Reference"], last["Weights"], last["From step"], last["Held-out reward margin"]) == (2, "bb", 3, None)


def test_headline():
    history = History(total_steps=100)
    history.extend([{"kind": "validation", "time": 0.0, "step": 0, "metrics": {"accuracy": 0.5}}])
    history.extend(step(n, float(n), loss=2.0 if n <= 10 else 1.0, tokens_per_s=1234.0) for n in range(1, 21))
    history.extend([{"kind": "validation", "time": 20.5, "step": 20, "metrics": {"accuracy": 0.75}}])
    shown = {figure.label: (figure.value, figure.note) for figure in tables.headline(history, Status(state=State.RUNNING))}
    assert shown == {
        "Loss": ("1.000", "−1.00"),
        "Held-out accuracy": ("75.0%", "from 50.0%"),
        "Tokens / s": ("1,234", ""),
        "Step": ("20", "of 100 · 20%"),
        "Time left": ("1 m 20 s", "20 s trained"),
    }


def test_headline_before_the_first_step():
    labels = [figure.label for figure in tables.headline(History(), Status(state=State.QUEUED))]
    assert labels == ["Step", "Time left"]


def test_headline_of_an_online_run_leads_with_its_rewards():
    history = History()
    history.extend([{"kind": "validation", "time": 0.0, "step": 0, "metrics": {"rewards": 0.25, "accuracy": 1.0}}])
    history.extend([step(1, 1.0, rewards=0.5, loss=-0.1, init_policy_kl=2.0)])
    history.extend([{"kind": "validation", "time": 2.0, "step": 1, "metrics": {"rewards": 0.75}}])
    shown = [(figure.label, figure.value, figure.note) for figure in tables.headline(history, Status(state=State.RUNNING))]
    assert shown[:3] == [("Reward", "0.5000", ""), ("Held-out reward", "0.7500", "from 0.2500"), ("KL", "2.000", "")]
