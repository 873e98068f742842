"""The parts of the Datasets page."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import streamlit as st

from ui import frame
from workbench import api
from workbench.api import SCHEMAS, CheckReport, Kind, Sample
from workbench.settings import spec
from workbench.views import datasets, figures
from workbench.views.datasets import KINDS, ROWS_A_PAGE


@dataclass(frozen=True)
class Asked:
    """What the form asks to look at. `changed` is the file's time, so that an edited file is read again."""

    source: str
    kind: Kind
    format: str
    model: str
    max_length: int
    changed: float
    changes: api.Changes = field(default_factory=api.Changes)
    variables: str = ""


def ask() -> Asked | None:
    """The form; None until it names a source. Raises ValueError where the columns or variables are none."""
    limits = spec.Data.model_fields
    with st.form("dataset", border=True):
        source_column, kind_column, button_column = st.columns([4, 2, 1], vertical_alignment="bottom")
        source = source_column.text_input(
            "File or dataset id", key="data-source", placeholder="workbench/data/demo/preferences.jsonl", help=limits["train"].description
        )
        kind = kind_column.selectbox(
            "Read as",
            list(KINDS),
            format_func=KINDS.__getitem__,
            help="What an algorithm learns from: DPO takes pairs, SFT conversations, KTO unpaired answers.",
        )
        with st.expander("Options"):
            one, two, three = st.columns(3)
            format_ = one.selectbox("Format", ["auto", *SCHEMAS], help="\n\n".join(f"**{name}**: `{text}`" for name, text in SCHEMAS.items()))
            model = two.text_input("Tokenizer of", "smollm2-135m-instruct", help="The model whose tokenizer and chat template encode the rows.")
            max_length = three.number_input("Longest row (tokens)", 8, 1_000_000, 1024, help=limits["max_length"].description)
            four, five, six = st.columns(3)
            columns = four.text_input("Columns", key="data-columns", placeholder="{prompt: query}", help=limits["columns"].description)
            map_ = five.text_input("Map", key="data-map", placeholder="path/to/file.py:function", help=limits["map"].description)
            choices: list[api.Pairs] = ["extremes", "all"]
            variables = st.text_input(
                "Variables of the chat template",
                key="data-variables",
                placeholder="{enable_thinking: false}",
                help=limits["template_kwargs"].description,
            )
            pairs = six.selectbox("Pairs", choices, help=limits["pairs"].description)
        pressed = button_column.form_submit_button("Check", icon=":material/fact_check:", type="primary", width="stretch")
    if pressed:
        st.session_state["data-checked"] = source.strip()
        st.session_state["data-page"] = 1
    source = st.session_state.get("data-checked", "")
    if not source:
        return None
    changes = api.Changes(api.as_columns(columns), map_.strip() or None, pairs)
    api.as_template_kwargs(variables)
    return Asked(source, kind, format_, model.strip(), int(max_length), _changed(source), changes, variables)


def nothing_asked() -> None:
    with st.container(border=True, horizontal_alignment="center", key="empty"):
        st.markdown("### Look before you train", anchors=False, text_alignment="center")
        st.markdown(
            "Enter the path of a `.jsonl`, `.json` or `.parquet` file (the first two also with `.gz`), or a Hugging Face dataset id; for the demo's pairs `workbench/data/demo/preferences.jsonl`.",
            text_alignment="center",
        )
        st.markdown("\n".join(["| format | a row |", "|---|---|", *(f"| {name} | {_cell(text)} |" for name, text in SCHEMAS.items())]))


def refused(message: str) -> None:
    first, _, rest = message.partition("\n")
    st.error(frame.plain(first[:1].upper() + first[1:]), icon=":material/report:")
    if rest:
        st.code(rest, language=None, wrap_lines=True)


@st.cache_data(max_entries=32, show_spinner=False)
def check(asked: Asked) -> CheckReport:
    variables = api.as_template_kwargs(asked.variables)
    return api.check_data(asked.source, asked.kind, asked.format, asked.model, asked.max_length, changes=asked.changes, template_kwargs=variables)


@st.cache_data(max_entries=128, show_spinner=False)
def browse(asked: Asked, offset: int) -> api.DataPage:
    variables = api.as_template_kwargs(asked.variables)
    how = (asked.format, asked.model)
    return api.browse_data(asked.source, asked.kind, offset, ROWS_A_PAGE, *how, changes=asked.changes, template_kwargs=variables)


def counts(report: CheckReport) -> None:
    """The headline numbers."""
    figures_ = datasets.headline(report)
    with st.container(key="headline"):
        for column, figure in zip(st.columns(len(figures_), gap="small"), figures_, strict=True):
            column.metric(figure.label, figure.value, figure.note, delta_color="off", delta_arrow="off", border=True, height="stretch")


def notes(report: CheckReport) -> None:
    """What is not read, and what keeps a run from starting."""
    if report.refused:
        st.error(frame.plain(datasets.refusal(report)), icon=":material/block:")
    if report.notes:
        st.warning("\n".join(f"- {frame.plain(note)}" for note in report.notes), icon=":material/visibility_off:")


def lengths(report: CheckReport) -> None:
    edges = [start for start, _, _ in report.histogram] + [report.histogram[-1][1]]
    limit = report.max_length if report.too_long else None
    figure = figures.lengths(edges, [rows for _, _, rows in report.histogram], limit, frame.theme())
    with st.container(border=True):
        st.markdown("**Length** of a row in tokens: its prompt and its longer answer")
        st.plotly_chart(figure, theme=None, config={"displayModeBar": False}, key="lengths")
    st.caption(datasets.percentiles(report))


def rows(asked: Asked, report: CheckReport) -> None:
    pages = datasets.pages(report.readable)
    with st.container(horizontal=True, vertical_alignment="center"):
        page = st.number_input(f"Page (of {pages:,})", 1, pages, key="data-page", width=160)
        st.caption(datasets.LEGEND)
    for row in browse(asked, (page - 1) * ROWS_A_PAGE).rows:
        _row(row)


def malformed(report: CheckReport) -> None:
    if not report.bad:
        st.success("Every row is valid.", icon=":material/check_circle:")
        return
    st.dataframe([bad.model_dump() for bad in report.bad_rows], hide_index=True, width="stretch")
    st.caption(datasets.malformed(report, len(report.bad_rows)))


def _row(row: Sample) -> None:
    with st.container(border=True):
        st.caption(f"{frame.code(Path(row.where).name)} · {datasets.length_of(row)}" + (f" · {frame.plain(row.note)}" if row.note else ""))
        st.html(f'<div class="wb-row">{datasets.spans(row.pieces)}</div>')
        if row.chosen is not None and row.rejected is not None:
            for column, label, pieces in zip(st.columns(2), ("Chosen", "Rejected"), (row.chosen, row.rejected), strict=True):
                column.markdown(f"**{label}**")
                column.html(f'<div class="wb-row">{datasets.spans(pieces, rejected=label == "Rejected")}</div>')


def _changed(source: str) -> float:
    try:
        path = api.locate(source)
        return path.stat().st_mtime if path else 0.0
    except (ValueError, OSError):
        return 0.0


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "\\n")
