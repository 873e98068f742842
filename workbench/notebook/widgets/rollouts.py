"""The rollouts of a run: to search, to sort and to read, with their tokens in colour; new ones come in while the run samples."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping, Sequence

import ipywidgets
import pandas as pd

from workbench.jobs.runs import Run
from workbench.notebook.widgets import parts, reader
from workbench.notebook.widgets.attached import Attached
from workbench.notebook.widgets.showing import Shown
from workbench.notebook.widgets.table import Column, Row, Table
from workbench.rundir import rollouts
from workbench.rundir.rollouts import COMPONENT, Query
from workbench.views import pictures, text
from workbench.views import rollouts as views

ROWS_A_PAGE = 20
EVERY_S = 1.0
CHARACTERS = 160


class Rollouts(Shown):
    """A table of the answers that a run sampled; the chosen one is below it, with its tokens in the colours of a quantity."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._attached = Attached(f"rollouts of {run.id}", self._tick, self._going, EVERY_S)
        self._lock = threading.RLock()
        self._shown: object = None
        self.chosen = ""
        self.search = ipywidgets.Text(placeholder="words in a prompt or an answer", description="Search")
        self.first, self.last = (
            ipywidgets.IntText(value=value, description=label, layout={"width": "150px"})
            for value, label in ((0, "Step from"), (0, "to (0: newest)"))
        )
        self.last.tooltip = "0 for the newest"
        self.ends = ipywidgets.Dropdown(options=[("all", ""), *((label, end) for end, label in views.ENDS.items())], description="Answers")
        self.sort = ipywidgets.Dropdown(options=self._sorts(), value="step", description="Sort by")
        self.order = ipywidgets.ToggleButtons(options=[("Highest", True), ("Lowest", False)], value=True)
        self.page = ipywidgets.BoundedIntText(value=1, min=1, max=1, description="Page", layout={"width": "150px"})
        self.quantity = ipywidgets.Dropdown(options=[], description="Colour by")
        self.table = Table(f"Rollouts of {run.id}", self._choose, self._attached.hear)
        self.total, self.said, self.one, self.tokens, self.over_steps = (ipywidgets.HTML() for _ in range(5))
        filters = ipywidgets.HBox([self.search, self.first, self.last, self.ends, self.sort, self.order])
        pages = ipywidgets.HBox([self.total, self.page])
        for bar in (filters, pages):
            bar.add_class("wb-bar")
        for each in (self.search, self.first, self.last, self.ends, self.sort, self.order):
            each.observe(lambda _: self._changed(1), "value")
        self.page.observe(lambda _: self._changed(), "value")
        self.quantity.observe(lambda _: self._read(), "value")
        super().__init__([filters, self.said, self.table, pages, self.one, self.quantity, self.tokens, self.over_steps], self._attached)
        self._update()

    def picture(self) -> str:
        frame, total = rollouts.page(self.run.dir, Query(**{**vars(self.query), "limit": 5}))
        names = _columns(frame)
        titles = [each.title for each in _headings(names)]
        rows = [dict(zip(titles, _cells(row, names), strict=True)) for row in frame.to_dict("records")]
        return pictures.table(rows, f"{total:,} rollouts of {self.run.id}")

    def plain_text(self) -> str:
        return f"Rollouts({self.run.id})"

    def mark(self) -> object:
        return rollouts.version(self.run.dir), self.query

    @property
    def query(self) -> Query:
        """What the filters ask for."""
        return Query(
            search=self.search.value,
            first_step=max(0, self.first.value),
            last_step=self.last.value if self.last.value > 0 else rollouts.LAST,
            finish_reason=self.ends.value or "",
            sort=self.sort.value or "step",
            descending=bool(self.order.value),
            offset=(self.page.value - 1) * ROWS_A_PAGE,
            limit=ROWS_A_PAGE,
        )

    def _sorts(self) -> list[tuple[str, str]]:
        known = views.SORTS
        return [
            (known.get(name) or name.removeprefix(COMPONENT), name)
            for name in rollouts.columns(self.run.dir)
            if name in known or name.startswith(COMPONENT)
        ]

    def _going(self) -> bool:
        return not self.run.status.state.ended

    def _tick(self, fresh: frozenset[str]) -> bool:
        going = self._going()
        self._update(force=bool(fresh))
        if not going:
            self.refresh_picture()
        return going

    def _changed(self, page: int = 0) -> None:
        if page and self.page.value != page:
            self.page.value = page  # which calls this again
        else:
            self._update()

    def _update(self, force: bool = False) -> None:
        """Ask for the page, and send it where it is another one; or say why that cannot be done."""
        with self._lock:
            try:
                asked = (rollouts.version(self.run.dir), self.query)
                if asked == self._shown and not force:
                    return
                frame, total = rollouts.page(self.run.dir, self.query)
                going = self._going()
            except (ValueError, OSError) as error:
                self.said.value = parts.message(str(error), "red")
                return
            self._shown = asked
            broken = ", ".join(path.name for path in rollouts.damaged(self.run.dir)[:5])
            self.said.value = parts.message(f"Left out, because they cannot be read: {broken}", "orange") if broken else ""
            self.page.max = max(1, -(-total // ROWS_A_PAGE))
            none = "The table fills with the first step that samples." if going else "There are no rollouts that match."
            self.total.value = f'<div class="wb-note">{f"{total:,} rollouts" if total else none}</div>'
            if list(self.sort.options) != (sorts := self._sorts()):
                self.sort.options, self.sort.value = sorts, self.sort.value or "step"
            names = _columns(frame)
            rows = [Row(f"{row['step']}:{row['rollout']}", _cells(row, names)) for row in frame.to_dict("records")]
            self.table.push(_headings(names), rows, self.chosen, going)

    def _choose(self, key: str) -> None:
        self.chosen = key
        self._read()
        self._update(force=True)

    def _read(self) -> None:
        """Show the chosen rollout, as its file has it now."""
        if not self.chosen:
            return
        with self._lock:
            rollout = rollouts.one(self.run.dir, *map(int, self.chosen.split(":")))
            if rollout is None:
                self.one.value, self.tokens.value, self.over_steps.value = (
                    parts.message("It is no longer there: its step was sampled again.", "orange"),
                    "",
                    "",
                )
                return
            quantities = {quantity.name: quantity for quantity in views.quantities(rollout)}
            options = [(quantity.label, name) for name, quantity in quantities.items()]
            if list(self.quantity.options) != options:
                before = self.quantity.value
                self.quantity.options = options  # which calls this again where the value is another
                self.quantity.value = before if before in quantities else next(iter(quantities), None)
            self.one.value = reader.heading(rollout)
            self.tokens.value = reader.tokens(rollout, self.quantity.value)
            self.over_steps.value = reader.over_steps(rollouts.follow(self.run.dir, rollout["prompt_id"]))


def _columns(frame: pd.DataFrame) -> list[str]:
    """What people look for first; rewards where there are some."""
    rewards = [name for name in frame if name == "reward" or str(name).startswith(COMPONENT)]
    valued = [str(name) for name in rewards if frame[name].notna().to_numpy(bool).any()]
    return ["step", "rollout", "prompt", "response", *valued, "response_tokens", "finish_reason"]


def _headings(names: Sequence[str]) -> list[Column]:
    titles = {"rollout": "#", "prompt": "Prompt", "response": "Answer", "response_tokens": "Tokens", "finish_reason": "End"}
    return [Column(titles.get(name) or text.title(name.removeprefix(COMPONENT)), name not in rollouts.TEXTS) for name in names]


def _cells(row: Mapping[Hashable, object], names: Sequence[str]) -> list[str]:
    return [_cell(name, row[name]) for name in names]


def _cell(name: str, value: object) -> str:
    if name == "prompt":
        return text.visible(views.gist(str(value)))[:CHARACTERS]
    if name == "finish_reason":
        return views.ENDS.get(str(value), str(value))
    if isinstance(value, float):
        return text.number(value, 3) if value == value else "–"
    return text.visible(" ".join(str(value).split()))[:CHARACTERS]
