"""The pieces of HTML that the widgets show. Everything in them that comes from a run is escaped."""

from __future__ import annotations

import html
from collections.abc import Hashable, Iterable, Mapping, Sequence

from workbench.jobs.runs import Run
from workbench.rundir.lines import Event
from workbench.rundir.store import State, Status
from workbench.settings.stored import spec_tree, work
from workbench.views import History, text
from workbench.views.rollouts import END_COLOURS, ENDS, gist
from workbench.views.text import Figure


def plain(content: str) -> str:
    """Text from elsewhere: nothing in it is markup, and no character hides."""
    return html.escape(text.visible(content))


def badge(content: str, colour: str = "gray") -> str:
    return f'<span class="wb-badge wb-{colour}">{plain(content)}</span>'


def label(run: Run) -> str:
    """A name that people know, with the end of the id that tells equal names apart."""
    return text.visible(f"{spec_tree(run.dir).get('name', 'run')} · {run.id[-4:]}")


def message(content: str, colour: str = "") -> str:
    """A box with a sentence; the empty one is none."""
    return f'<div class="wb-message {colour and f"wb-{colour}"}" role="status">{plain(content)}</div>' if content else ""


def title(run: Run, status: Status, link: str = "") -> str:
    """Name, state and algorithm; below them what the run is, with a link to its page in the app where one is given."""
    tree = spec_tree(run.dir)
    badges = badge(status.state.capitalize(), text.STATE_COLOURS[status.state]) + badge(text.title(work(tree)).upper())
    about = [
        run.id,
        str(tree.get("model", {}).get("source", "?")),
        str(tree.get("backend", {}).get("name", "?")),
        f"started {text.clock(status.created)}",
    ]
    about += [f"attempt {status.attempt}"] if status.attempt > 1 else []
    page = f' · <a href="{html.escape(link)}" target="_blank" rel="noopener">open in the app</a>' if link else ""
    name = f'<span class="wb-name" role="heading" aria-level="3">{plain(str(tree.get("name", run.id)))}</span>'
    return f'<div class="wb-line">{name}{badges}</div><div class="wb-sub">{" · ".join(map(plain, about))}{page}</div>'


def progress(history: History, status: Status) -> str:
    """A bar of the steps that are done, or of the phase before the first."""
    phase = history.phase or {}
    if history.steps or status.state.ended:
        step, total = (history.steps[-1] if history.steps else status.step), history.total_steps or status.total_steps
        left = None if status.state.ended else text.eta_s(history.steps, history.elapsed_s, total)
        content = f"Step {step:,}" + (f" of {total:,}" if total else "") + (f" · {text.duration(left)} left" if left is not None else "")
        return _bar(step / total if total else 0.0, content)
    done, total = phase.get("done"), phase.get("total")
    content = phase.get("message") or status.message or ("in its first step" if status.state == State.RUNNING else "waiting for the backend")
    counted = f" · {done:,} of {total:,}" if total else ""
    return _bar(done / total if done is not None and total else 0.0, f"{content[:1].upper()}{content[1:]}{counted}")


def _bar(share: float, content: str) -> str:
    percent = round(100 * min(1.0, max(0.0, share)), 1)
    return (
        f'<div class="wb-progress" role="progressbar" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{percent:g}" aria-label="{plain(content)}">'
        f'<div style="width: {percent:g}%"></div></div><div class="wb-note">{plain(content)}</div>'
    )


def figures(values: Iterable[Figure]) -> str:
    """The headline's numbers as cards."""
    cards = (
        f'<div class="wb-figure" title="{plain(each.help)}"><div class="wb-note">{plain(each.label)}</div><div class="wb-value">{plain(each.value)}</div><div class="wb-note">{plain(each.note)}</div></div>'
        for each in values
    )
    return f'<div class="wb-figures">{"".join(cards)}</div>'


def notices(history: History, status: Status) -> str:
    """What the run's owner should know: why it failed or waits, warnings, alarms that sound."""
    boxes = []
    if status.state == State.FAILED:
        boxes.append(message(f"The run failed. {status.message or 'It left no message.'}", "red"))
    elif status.message and status.state in (State.QUEUED, State.PREEMPTED, State.STOPPING, State.STOPPED, State.KILLED):
        boxes.append(message(f"{status.message[:1].upper()}{status.message[1:]}."))
    if paused(history, status):
        boxes.append(message(f"{(history.phase or {})['message'].capitalize()}.", "orange"))
    boxes += [message(content[:1].upper() + content[1:], "orange") for content in history.warnings]
    return "".join([*boxes, *(_alarm(alarm) for alarm in reversed(history.alarms) if "over" not in alarm)])


def paused(history: History, status: Status) -> bool:
    """Whether the run is held before its next step."""
    return status.state == State.RUNNING and str((history.phase or {}).get("message", "")).startswith("paused")


def _alarm(alarm: Event) -> str:
    places = ", ".join(map(str, alarm.get("rollouts", ())))
    look = f" Rollouts to look at: {places}." if places else ""
    name = alarm["name"]
    return message(f"{name[:1].upper()}{name[1:]} at step {alarm['step']:,}, {text.ago(alarm['time'])}: {alarm['message']}{look}", "red")


def log_tail(content: str) -> str:
    return f'<pre class="wb-log" tabindex="0" aria-label="The end of the log">{plain(content)}</pre>' if content else ""


def rollouts(rows: Sequence[Mapping[Hashable, object]], step: int) -> str:
    """Some answers of the newest step, with their rewards."""
    return _answers(f"Rollouts of step {step:,}", (rollout(row) for row in rows))


def samples(values: Sequence[Mapping[str, str]], step: int) -> str:
    """The answers to held-out prompts at the newest validation."""
    return _answers(f"Held-out samples at step {step:,}", (_answer(sample["prompt"], sample["response"], "") for sample in values))


def _answers(heading: str, cards: Iterable[str]) -> str:
    return (
        f'<section aria-label="{plain(heading)}"><div class="wb-title">{plain(heading)}</div><div class="wb-answers">{"".join(cards)}</div></section>'
    )


def rollout(row: Mapping[Hashable, object]) -> str:
    """A rollout as a card."""
    reward = row.get("reward")
    badges = [badge(f"reward {text.number(float(reward), 3)}", "blue")] if isinstance(reward, int | float) and reward == reward else []
    end, step = str(row["finish_reason"]), f"step {row['step']}"
    badges.append(badge(ENDS.get(end, end), END_COLOURS.get(end, "gray")))
    return _answer(str(row["prompt"]), str(row["response"]), "".join([badge(step), *badges]))


def _answer(prompt: str, response: str, badges: str) -> str:
    row = f'<div class="wb-line">{badges}</div>' if badges else ""
    return f'<article class="wb-answer">{row}<p class="wb-asked">{plain(gist(prompt))}</p><p>{plain(response) or "(empty answer)"}</p></article>'
