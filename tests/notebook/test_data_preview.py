"""The preview of a data set: what is read arrives from a thread, page by page, and is taken back with the widget."""

import threading

import pytest

from workbench import api
from workbench.data.check import Bad, CheckReport, Page, Piece, Sample
from workbench.notebook.widgets.data_preview import DataPreview

PATIENCE_S = 60.0
REPORT = CheckReport(
    source="rows.jsonl",
    kind="preference",
    format="preference",
    rows=41,
    readable=41,
    bad=1,
    bad_rows=[Bad(where="rows.jsonl:7", expected="chosen", found="<b>")],
    too_long=2,
    max_length=64,
    duplicates=0,
    repeated_prompts=0,
    identical_pairs=0,
    prompt_tokens=300,
    answer_tokens=100,
    percentiles={"p0": 3, "p50": 9, "p100": 70},
    histogram=[(0, 32, 40), (32, 64, 1)],
    samples=[],
)


def answer(text):
    return [Piece(text=text, role="assistant", learnt=True)]


def rows(offset, count):
    prompt = [Piece(text="Is it?", role="user", learnt=False)]
    listed = [
        Sample(where=f"rows.jsonl:{number + 1}", tokens=9, pieces=prompt, chosen=answer(f"<yes {number}>"), rejected=answer("no"))
        for number in range(offset, min(offset + count, 41))
    ]
    return Page(total=41, offset=offset, rows=listed)


@pytest.fixture
def asked(monkeypatch):
    """What the preview asks the API for."""
    calls = []

    def check(source, kind, format, model, max_length, stopped, changes, template_kwargs):
        calls.append(("check", source, kind, format, model, max_length))
        assert not stopped()
        return REPORT

    def browse(source, kind, offset, count, format, model, stopped, changes, template_kwargs):
        calls.append(("browse", offset, count))
        return rows(offset, count)

    monkeypatch.setattr(api, "check_data", check)
    monkeypatch.setattr(api, "browse_data", browse)
    return calls


@pytest.fixture
def preview(asked):
    made = DataPreview("rows.jsonl", "preference", model="tiny", max_length=64)
    assert made.wait(PATIENCE_S)
    yield made
    made.close()


def test_shows_the_counts_the_lengths_the_malformed_rows_and_the_first_page(preview, asked):
    assert asked == [("check", "rows.jsonl", "preference", "auto", "tiny", 64), ("browse", 0, 10)]
    assert preview.tabs.layout.display is None
    assert preview.busy.value == ""
    assert "Malformed" in preview.head.value
    assert "<svg" in preview.lengths.value
    assert "rows.jsonl:7" in preview.malformed.value
    assert "&lt;b&gt;" in preview.malformed.value
    assert preview.tabs.titles[2] == "Malformed (1)"
    assert preview.shown.value.count("&lt;yes ") == 10
    assert preview.shown.value.count("<mark") == 20


def test_pages_are_turned_and_read_once(preview, asked):
    assert (preview.previous.disabled, preview.next.disabled, preview.of.value) == (True, False, "of 5")
    preview.next.click()
    assert preview.wait(PATIENCE_S)
    assert "&lt;yes 10&gt;" in preview.shown.value
    preview.page.value = 5
    assert preview.wait(PATIENCE_S)
    assert preview.shown.value.count("&lt;yes ") == 1
    assert (preview.previous.disabled, preview.next.disabled) == (False, True)
    preview.page.value = 1
    assert "&lt;yes 0&gt;" in preview.shown.value
    assert [call[1] for call in asked if call[0] == "browse"] == [0, 10, 40]


def test_a_source_that_cannot_be_read_is_said(monkeypatch):
    def check(*_, **__):
        raise ValueError("rows.jsonl: no good row\nrows.jsonl:1: <expected> prompt")

    monkeypatch.setattr(api, "check_data", check)
    preview = DataPreview("rows.jsonl")
    assert preview.wait(PATIENCE_S)
    assert preview.error.startswith("rows.jsonl: no good row")
    assert "&lt;expected&gt; prompt" in preview.head.value
    assert "no good row" in preview.picture()
    assert preview.tabs.layout.display == "none"
    preview.close()


def test_closing_stops_the_reading_and_leaves_no_thread(monkeypatch):
    begun = threading.Event()

    def check(*_, stopped, **__):
        begun.set()
        while not stopped():
            pass
        raise ValueError("the check was stopped")

    monkeypatch.setattr(api, "check_data", check)
    preview = DataPreview("rows.jsonl")
    assert "being read" in preview.plain_text()
    assert begun.wait(PATIENCE_S)
    assert "Reading and encoding" in preview.busy.value
    preview.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name == "preview of rows.jsonl"]


def test_a_saved_notebook_has_the_picture(preview):
    bundle = preview._repr_mimebundle_()
    for part in ("<svg", "rows.jsonl:7", "&lt;yes 0&gt;", "median 9"):
        assert part in bundle["text/html"]
    assert "<script" not in bundle["text/html"]
    assert bundle["text/plain"] == "DataPreview(rows.jsonl: 41 rows, 1 malformed)"
    preview.next.click()
    assert preview.wait(PATIENCE_S)
    assert "&lt;yes 10&gt;" in preview.picture()
