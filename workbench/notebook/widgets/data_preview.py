"""`wb.DataPreview`: a data set as training would see it: counts, lengths, malformed rows, and the rows with what is learnt in colour."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

import ipywidgets
from pydantic import JsonValue

from workbench import api
from workbench.notebook.widgets import parts
from workbench.notebook.widgets.background import Background
from workbench.notebook.widgets.fields import close_all
from workbench.notebook.widgets.showing import Shown
from workbench.notebook.widgets.style import style
from workbench.views import datasets, pictures, text

CLOSE_S = 5.0


@dataclass(frozen=True, eq=False)
class _Wanted:
    page: int


class _How(TypedDict):
    changes: api.Changes | None
    template_kwargs: Mapping[str, JsonValue] | None


class DataPreview(Shown):
    """A data set as training sees it: `DataPreview("pairs.jsonl")`, `DataPreview("org/chats", "conversation", model="meta-llama/…")`.

    Args:
        source: a .jsonl, .jsonl.gz or .parquet file, or a Hugging Face dataset id.
        kind: what an algorithm would read it as.
        model: whose tokenizer and chat template encode the rows.
        max_length: longest row that is kept, in tokens.
        changes: what is done to a row before it is read, as `data.columns`, `data.map` and `data.pairs`.
        template_kwargs: as `data.template_kwargs`.

    It is read in a process of its own, which a thread waits for: the kernel is free. `report` has every number once it is read, `error` says why it
    cannot be.
    """

    def __init__(
        self,
        source: str,
        kind: api.Kind = "preference",
        format: str = "auto",
        model: str = "smollm2-135m-instruct",
        max_length: int = 1024,
        *,
        changes: api.Changes | None = None,
        template_kwargs: Mapping[str, JsonValue] | None = None,
    ) -> None:
        self._how: _How = {"changes": changes, "template_kwargs": template_kwargs}
        self.source, self.format, self.model, self.max_length = source, format, model, max_length
        self.kind: api.Kind = kind
        self.report: api.CheckReport | None = None
        self.error = ""
        self._rows: dict[int, api.DataPage] = {}
        self._lock = threading.RLock()
        self._reading = Background(f"preview of {source}", self._read)
        self.busy, self.head, self.lengths, self.shown, self.malformed = (ipywidgets.HTML() for _ in range(5))
        self.page = ipywidgets.BoundedIntText(1, min=1, max=1, description="Page", tooltip=f"{datasets.ROWS_A_PAGE} rows each")
        self.previous = ipywidgets.Button(icon="chevron-left", tooltip="The page before", disabled=True)
        self.next = ipywidgets.Button(icon="chevron-right", tooltip="The next page", disabled=True)
        self.page.observe(lambda _: self._ask(), "value")
        self.previous.on_click(lambda _: self._turn(-1))
        self.next.on_click(lambda _: self._turn(1))
        self.of = ipywidgets.HTML()
        bar = ipywidgets.HBox([self.previous, self.page, self.next, self.of])
        bar.add_class("wb-bar")
        self.tabs = ipywidgets.Tab([ipywidgets.VBox([bar, self.shown]), self.lengths, self.malformed], titles=("Rows", "Lengths", "Malformed"))
        self.tabs.layout.display = "none"
        super().__init__([style(), self.busy, self.head, self.tabs])
        self._ask()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the page that is asked for is there. False where it takes longer."""
        return self._reading.wait(timeout_s)

    def close(self) -> None:
        """Take the preview away, with the process that reads for it."""
        self._reading.close()
        self._reading.wait(CLOSE_S)
        for child in self.children:
            close_all(child)
        super().close()

    def picture(self) -> str:
        with self._lock:
            page = self._rows.get(self.page.value)
            if self.error:
                return _refusal(self.error)
            if self.report is None:
                return f'<p style="{pictures.FONT}">{parts.plain(self.plain_text())}</p>'
            return datasets.picture(self.report) + (datasets.rows(page.rows) if page else "")

    def plain_text(self) -> str:
        if self.error:
            return f"DataPreview({self.source}: {self.error})"
        if self.report is None:
            return f"DataPreview({self.source}: being read)"
        return f"DataPreview({self.source}: {self.report.rows:,} rows, {self.report.bad:,} malformed)"

    def mark(self) -> object:
        return self.error, self.report is None, self.page.value, self.page.value in self._rows

    def _turn(self, by: int) -> None:
        self.page.value += by

    def _ask(self) -> None:
        """Show the page that is asked for: at once where it was read before."""
        with self._lock:
            self.error = ""
            if self.page.value not in self._rows:
                self._reading.give(_Wanted(self.page.value))
            else:
                self._reading.give(None)
            self._draw()

    def _read(self, wanted: _Wanted) -> bool:
        """In the thread: the counts first, then the page."""
        began = time.monotonic()

        def stopped() -> bool:
            with self._lock:
                going = self._reading.going
                if going:
                    self.busy.value = _busy(time.monotonic() - began)
            return not going

        try:
            if self.report is None:
                report = api.check_data(self.source, self.kind, self.format, self.model, self.max_length, stopped=stopped, **self._how)
                self._take(report)
            if self._reading.newest(wanted):
                offset = (wanted.page - 1) * datasets.ROWS_A_PAGE
                what = (self.source, self.kind, offset, datasets.ROWS_A_PAGE, self.format, self.model)
                page = api.browse_data(*what, stopped=stopped, **self._how)
                with self._lock:
                    self._rows[wanted.page] = page
        except (ValueError, OSError) as error:
            with self._lock:
                self.error = str(error) if self._reading.newest(wanted) else ""
        with self._lock:
            if self._reading.newest(wanted):
                self._draw(reading=False)
        return False

    def _take(self, report: api.CheckReport) -> None:
        with self._lock:
            self.report = report
            if self._reading.going:
                self._draw()

    def _draw(self, reading: bool = True) -> None:
        report, page = self.report, self._rows.get(self.page.value)
        if self.error:
            self.busy.value, self.head.value = "", _refusal(self.error)
            self.tabs.layout.display = "none"
            return
        self.busy.value = _busy(0.0) if reading and page is None else ""
        if report is None:
            return
        pages = datasets.pages(report.readable)
        refused = [datasets.refusal(report)] if report.refused else []
        notes = "".join(parts.message(note) for note in [*refused, *report.notes])
        self.head.value = parts.figures(datasets.headline(report)) + notes
        self.lengths.value = datasets.lengths(report)
        self.malformed.value = datasets.malformed_table(report)
        self.tabs.titles = ("Rows", "Lengths", f"Malformed ({report.bad:,})")
        self.tabs.layout.display = None
        self.of.value = f"of {pages:,}"
        self.page.max = pages
        self.previous.disabled, self.next.disabled = self.page.value <= 1, self.page.value >= pages
        if page is not None:
            self.shown.value = datasets.rows(page.rows)


def _busy(seconds: float) -> str:
    since = f" {text.duration(seconds)}" if seconds >= 1 else ""
    return f'<div class="wb-note" role="status">Reading and encoding the rows …{since}</div><div class="wb-busy"></div>'


def _refusal(message: str) -> str:
    """Why it cannot be read; what follows the first line stands as it is."""
    first, _, rest = message.partition("\n")
    return parts.message(first[:1].upper() + first[1:], "red") + (f'<pre style="white-space:pre-wrap">{parts.plain(rest)}</pre>' if rest else "")
