"""`wb.check_data` and `wb.preflight`: what is known before a launch, as a notebook shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, overload

from pydantic import JsonValue

from workbench import api
from workbench.data.check import CheckReport
from workbench.notebook import progress
from workbench.notebook.experiments import Experiment, as_spec
from workbench.settings import spec as specs
from workbench.views import datasets, pictures

if TYPE_CHECKING:
    import pandas as pd

    from workbench.notebook.widgets.data_preview import DataPreview

BAD_ROWS = 10


class DataReport:
    """What there is to know of a data set's rows as training would see them; `report` has every number."""

    def __init__(
        self, source: str, report: CheckReport, format: str, model: str, changes: api.Changes, template_kwargs: Mapping[str, JsonValue]
    ) -> None:
        self.source, self.report = source, report
        self._format, self._model, self._changes, self._template_kwargs = format, model, changes, template_kwargs

    @property
    def bad_rows(self) -> pd.DataFrame:
        """The first rows that cannot be used: `where` (file:line), `expected`, `found`."""
        import pandas as pd

        rows = [bad.model_dump(include={"where", "expected", "found"}) for bad in self.report.bad_rows]
        return pd.DataFrame(rows, columns=pd.Index(["where", "expected", "found"]))

    def widget(self) -> DataPreview:
        """To page through the rows with their loss mask."""
        from workbench.notebook.widgets.data_preview import DataPreview

        how = (self._format, self._model, self.report.max_length)
        return DataPreview(self.source, self.report.kind, *how, changes=self._changes, template_kwargs=self._template_kwargs)

    def __repr__(self) -> str:
        report = self.report
        return (
            f"{self.source}: {report.rows:,} rows ({report.format}, read as {report.kind}), {report.bad:,} malformed, "
            f"{report.too_long:,} over {report.max_length} tokens, {report.duplicates:,} duplicates"
        )

    @property
    def notes(self) -> list[str]:
        """What keeps a run from starting, what is not read, and what is likely not meant, in a sentence each."""
        return [*([datasets.refusal(self.report)] if self.report.refused else []), *self.report.notes]

    def _repr_html_(self) -> str:
        report = self.report
        bars = pictures.bars([(f"{start}–{end - 1}", count) for start, end, count in report.histogram], "length", "tokens in a row")
        bad = pictures.table([bad.model_dump(include={"where", "expected", "found"}) for bad in report.bad_rows[:BAD_ROWS]], "malformed rows")
        notes = pictures.table([{"": note} for note in self.notes], "notes") if self.notes else ""
        return pictures.table([{"": repr(self)}]) + notes + pictures.beside([bars]) + (bad if report.bad_rows else "")


class Findings(Sequence[api.Finding]):
    """What a check before the launch told: a picture of them is a table, errors first."""

    def __init__(self, findings: Sequence[api.Finding]) -> None:
        self._findings = sorted(findings, key=lambda each: ("error", "warning", "ok").index(each.level))

    @property
    def ok(self) -> bool:
        """Whether nothing would keep the run from starting."""
        return all(each.level != "error" for each in self)

    @overload
    def __getitem__(self, index: int) -> api.Finding: ...
    @overload
    def __getitem__(self, index: slice) -> Findings: ...
    def __getitem__(self, index: int | slice) -> api.Finding | Findings:
        return Findings(self._findings[index]) if isinstance(index, slice) else self._findings[index]

    def __len__(self) -> int:
        return len(self._findings)

    def __repr__(self) -> str:
        return "\n".join(f"{each.level}: {each.name}: {each.message}" for each in self) or "nothing to report"

    def _repr_html_(self) -> str:
        return pictures.table([{"": each.level, "check": each.name, "says": each.message} for each in self], "" if len(self) else "nothing to report")


def check_data(
    source: str,
    kind: api.Kind = "preference",
    format: str = "auto",
    model: str = "smollm2-135m-instruct",
    max_length: int = 1024,
    *,
    columns: Mapping[str, str | None] | None = None,
    map: str | None = None,
    pairs: api.Pairs = "extremes",
    template_kwargs: Mapping[str, JsonValue] | None = None,
) -> DataReport:
    """Count and measure a data set's rows as training would see them.

    Args:
        source: a .jsonl, .jsonl.gz or .parquet file, or a Hugging Face dataset id.
        kind: what an algorithm would read it as.
        model: whose tokenizer and chat template count the tokens.
        max_length: longest row that is kept, in tokens.
        columns: our names with the file's, as `data.columns`; `map`, `pairs` and `template_kwargs` are as `data.map`, `data.pairs` and
            `data.template_kwargs`.

    Raises:
        ValueError: there is no such source, not one good row in it, or no such model.
    """
    changes, variables = api.Changes(columns or {}, map, pairs), template_kwargs or {}
    with progress.waiting(f"reading {source} …"):
        report = api.check_data(source, kind, format, model, max_length, changes=changes, template_kwargs=variables)
        return DataReport(source, report, format, model, changes, variables)


def preflight(experiment: Experiment | specs.Experiment | str, on_node: bool = False) -> Findings:
    """What would keep an experiment from starting, without submitting it.

    Args:
        on_node: also try on a node, which waits in the queue.

    Raises:
        ValueError: a wrong setting; or `on_node` where the backend has no nodes.
    """
    with progress.waiting("checking …"):
        return Findings(api.preflight(as_spec(experiment), on_node))
