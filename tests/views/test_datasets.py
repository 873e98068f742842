"""A data set's picture: what is learnt is marked, text is escaped, and every number is there."""

from workbench.data.check import Bad, CheckReport, Piece, Sample
from workbench.views import datasets

PROMPT = [Piece(text="<|user|>", role="", learnt=False), Piece(text="Is 1 < 2?", role="user", learnt=False)]
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
    percentiles={"p0": 3, "p50": 9, "p90": 20, "p100": 70},
    histogram=[(0, 32, 40), (32, 64, 0), (64, 96, 1)],
    samples=[],
)


def test_what_is_learnt_is_marked_and_text_is_escaped():
    shown = datasets.spans([*PROMPT, Piece(text="<yes>", role="assistant", learnt=True)])
    assert shown.count("<mark") == 1
    assert "&lt;yes&gt;</mark>" in shown
    assert "Is 1 &lt; 2?" in shown
    assert '<span style="opacity:.45">&lt;|user|&gt;</span>' in shown


def test_a_pair_has_both_answers_in_two_colours():
    answers = ([Piece(text=text, role="assistant", learnt=True)] for text in ("yes", "no"))
    shown = datasets.row(Sample(where="/data/rows.jsonl:7", tokens=12, pieces=PROMPT, chosen=next(answers), rejected=next(answers), note="<i>"))
    assert [colour in shown for colour in (datasets.LEARNT, datasets.REJECTED)] == [True, True]
    assert "rows.jsonl:7" in shown
    assert "12 tokens in all · &lt;i&gt;" in shown


def test_the_picture_has_the_counts_the_lengths_and_the_malformed_rows():
    shown = datasets.picture(REPORT)
    for part in ("<svg", "41", "rows.jsonl:7", "&lt;b&gt;", "median 9", "90 % up to 20", "longest 70", "preference pairs"):
        assert part in shown, part
    assert datasets.headline(REPORT)[-1].note == "25% of all"
    assert datasets.pages(41) == 5
    assert datasets.pages(0) == 1
