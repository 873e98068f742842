"""The Steer and Chat panels in a notebook: the app's own, fed by the kernel; and the same endpoint asked from a cell."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import anywidget
import traitlets
from pydantic import ValidationError

from workbench import api
from workbench.api import Answers, Question, Served
from workbench.notebook.widgets import parts
from workbench.notebook.widgets.showing import Shown
from workbench.notebook.widgets.style import style
from workbench.rundir.lines import Json
from workbench.views import live, pictures

STATIC = Path(__file__).parent / "static"
PICTURED = 6
"""Answers in the picture of a saved notebook."""
Message = Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """An answer, what it was asked for, and what was measured of it; `measured` is None where the endpoint measures nothing, `unmeasured` says why."""

    prompt: tuple[Mapping[str, str], ...]
    text: str
    model: str
    requested: Mapping[str, float]
    measured: Mapping[str, float] | None
    finish_reason: str
    unmeasured: str = ""

    def __str__(self) -> str:
        return self.text

    def row(self) -> dict[str, object]:
        """As the panel exports it."""
        return {
            "prompt": [dict(turn) for turn in self.prompt],
            "response": self.text,
            "requested": dict(self.requested),
            "attributes": dict(self.measured or {}),
            "model": self.model,
            "finish_reason": self.finish_reason,
        }


class Panel(anywidget.AnyWidget):
    """The panel's part in the browser. `took` is called in a thread with each question that has its answer, and the answer."""

    data = traitlets.Dict().tag(sync=True)
    kept = traitlets.Unicode("").tag(sync=True)
    """The panel's state, as JSON: what stands in it after the page is loaded again."""
    _css = live.text_of("studio.css") + STATIC.joinpath("widgets.css").read_text()

    def __init__(self, panel: Literal["steer", "chat"], served: Sequence[Served], took: Callable[[Answer], None]) -> None:
        self._took = took
        self._going: set[Answers] = set()
        self._lock = threading.Lock()
        scripts = [
            live.text_of("studio.js"),
            live.text_of(f"{panel}.js"),
            f"const PANEL = {panel}Panel;",
            STATIC.joinpath("studio_widget.js").read_text(),
        ]
        models = [each.json() for each in served]
        super().__init__(_esm="\n".join(scripts), data={"panel": panel, "models": models, "first": models[0]["key"]})
        self.on_msg(self._on_message)

    def stop(self) -> None:
        """Cancel what is being answered."""
        with self._lock:
            for answers in self._going:
                answers.close()

    def _on_message(self, _: object, content: Message, buffers: object) -> None:
        kind = content.get("kind")
        if kind == "stop":
            with self._lock:
                for answers in self._going:
                    answers.stop(map(str, content["ids"]))
        elif kind == "ask":
            self._reply(content, lambda: self._ask(content))
        elif kind == "reach":
            self._reply(content, lambda: cast(Json, api.reach(content["endpoint"], content["model"], content["attributes"])))
        elif kind == "presets":
            self._reply(content, lambda: cast(Json, api.presets()))
        elif kind == "preset":
            self._reply(content, lambda: _preset(content["name"], content["attributes"]))

    def _reply(self, content: Message, work: Callable[[], Json]) -> None:
        """Send what it gives, or the reason why not; nothing for None: the reply comes later."""
        try:
            value = work()
        except (ValueError, OSError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            self.send({"kind": "reply", "to": content["request"], "error": reason})
        else:
            if value is not None:
                self.send({"kind": "reply", "to": content["request"], "value": value})

    def _ask(self, content: Message) -> None:
        questions = [Question.model_validate(each) for each in content["questions"]]
        answers = Answers(questions, api.endpoint)
        with self._lock:
            self._going.add(answers)
        self.send({"kind": "events", "to": content["request"], "events": []})  # that it is being answered
        threading.Thread(target=self._pass_on, args=(content["request"], questions, answers), name="panel's answers", daemon=True).start()

    def _pass_on(self, to: str, questions: Sequence[Question], answers: Answers) -> None:
        """In a thread: send what comes, until all have their answers."""
        gathered = Gathered(questions)
        try:
            while (events := answers.next()) is not None:
                if events:
                    self.send({"kind": "events", "to": to, "events": events})
                    gathered.take(events)
        finally:
            with self._lock:
                self._going.discard(answers)
            for answer in gathered.answers():
                self._took(answer)
            self.send({"kind": "reply", "to": to, "value": {}})


class Gathered:
    """Events as whole answers."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self._questions = {question.id: question for question in questions}
        self._texts: dict[str, list[str]] = {name: [] for name in self._questions}
        self._said: dict[str, dict[str, Json]] = {name: {} for name in self._questions}

    def take(self, events: Sequence[Mapping[str, Json]]) -> None:
        for event in events:
            name = str(event["id"])
            if "text" in event:
                self._texts[name].append(str(event["text"]))
            else:
                self._said[name].update(event)

    def error(self) -> str:
        """Of the first question that failed; empty where none did."""
        return next((str(said["error"]) for said in self._said.values() if "error" in said), "")

    def answers(self) -> list[Answer]:
        """Those that have an end."""
        return [self._answer(question) for name, question in self._questions.items() if "end" in self._said[name]]

    def _answer(self, question: Question) -> Answer:
        said = self._said[question.id]
        measured = cast(dict[str, float] | None, said.get("measured"))
        return Answer(
            tuple(question.turns()),
            "".join(self._texts[question.id]),
            question.model,
            question.attributes,
            measured,
            str(said["end"]),
            str(said.get("unmeasured", "")),
        )


class Studio(Shown):
    """What the sliders and the chat have in common: the panel, the answers so far, and asking from a cell.

    Args:
        endpoint: the run that serves; `wb.steer` and `wb.chat` start one.

    Raises:
        ValueError: it is not serving.
    """

    kind: Literal["steer", "chat"] = "steer"

    def __init__(self, endpoint: api.Run | str) -> None:
        run_id = endpoint if isinstance(endpoint, str) else endpoint.id
        self.run = api.get(run_id)
        self.served = [Served(self.run.id, model) for model in api.endpoint(self.run.id).models()]
        self.answers: list[Answer] = []
        """Every answer so far, the browser's and the cells', oldest first."""
        self._lock = threading.Lock()
        self.panel = Panel(self.kind, self.served, self._take)
        super().__init__([style(), self.panel])

    @property
    def rows(self) -> list[dict[str, object]]:
        """The answers as rows: prompt, response, requested and measured attributes, model."""
        with self._lock:
            return [answer.row() for answer in self.answers]

    @property
    def models(self) -> list[str]:
        """The checkpoints that can be asked."""
        return [each.model.id for each in self.served]

    def stop(self) -> None:
        """End the endpoint, which frees its memory. Raises ValueError where it has ended."""
        self.panel.stop()
        self.run.stop()

    def close(self) -> None:
        """Cancel what is being answered and take the widget away. The endpoint stays: `stop` ends it."""
        self.panel.stop()
        self.panel.close()
        super().close()

    def asked(self, questions: Sequence[Question]) -> list[Answer]:
        """The answers, once all are there. Raises ValueError with the reason where one has none."""
        answers, gathered = Answers(questions, api.endpoint), Gathered(questions)
        try:
            while (events := answers.next()) is not None:
                gathered.take(events)
        finally:
            answers.close()
        if reason := gathered.error():
            raise ValueError(reason)
        done = gathered.answers()
        for answer in done:
            self._take(answer)
        return done

    def question(
        self, name: str, messages: Sequence[Mapping[str, str]], model: str | None, attributes: Mapping[str, float], sampling: Mapping[str, object]
    ) -> Question:
        """Raises ValueError for a model that is not served, or sampling that is not valid."""
        chosen = model or self.models[0]
        if chosen not in self.models:
            raise ValueError(f"the endpoint serves no {chosen!r}; it serves: {', '.join(self.models)}")
        return Question.model_validate(
            {"id": name, "endpoint": self.run.id, "model": chosen, "messages": messages, "attributes": dict(attributes), "sampling": dict(sampling)}
        )

    def picture(self) -> str:
        with self._lock:
            shown = self.answers[-PICTURED:]
        cards = "".join(map(_card, shown))
        return f'<div style="{pictures.FONT}"><b>{parts.plain(self.plain_text())}</b>{cards}</div>'

    def plain_text(self) -> str:
        return f"{type(self).__name__}({', '.join(self.models)}: {len(self.answers)} answers)"

    def mark(self) -> object:
        return len(self.answers)

    def _take(self, answer: Answer) -> None:
        with self._lock:
            self.answers.append(answer)


def _card(answer: Answer) -> str:
    asked = ", ".join(f"{name} {rating:g}" for name, rating in answer.requested.items())
    measured = ", ".join(f"{name} {rating:.1f}" for name, rating in (answer.measured or {}).items())
    about = " · ".join(part for part in (answer.model, asked and f"requested {asked}", measured and f"measured {measured}") if part)
    question = answer.prompt[-1]["content"]
    return (
        f'<div style="border:1px solid #8884;border-radius:8px;padding:8px 12px;margin:8px 0">'
        f'<div style="opacity:.75;font-size:12px">{parts.plain(about)}</div><div style="opacity:.75">{parts.plain(question)}</div>'
        f'<div style="white-space:pre-wrap">{parts.plain(answer.text) or "(empty answer)"}</div></div>'
    )


def _preset(name: str, attributes: Mapping[str, float] | None) -> Json:
    if attributes is None:
        api.remove_preset(name)
    else:
        api.save_preset(name, attributes)
    return cast(Json, api.presets())
