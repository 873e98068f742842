"""Answers with ratings, as HelpSteer and SteerLM have them."""

from workbench.data.formats._answers import answered
from workbench.data.formats._parts import PROMPT, Asked, Parsed, question
from workbench.data.formats._ratings import attributes, ratings
from workbench.data.formats._values import Raw
from workbench.data.rows import Kind, Malformed, Rated
from workbench.metrics import STEERLM

SCHEMA = (
    '{"prompt", "response", and either ratings under their own names (null: not rated), as in HelpSteer, or "attributes": a mapping or '
    '"quality:4,toxicity:0"}; ShareGPT turns whose last has such a "label" are read as rated too (SteerLM)'
)
NAMES = frozenset({*STEERLM, "overall", "overall_score", "honesty", "truthfulness", "instruction_following", "safety", "score", "rating"})
"""Columns that are ratings wherever they stand; `data.columns` makes any other one by naming it."""
OASST = (
    "spam",
    "lang_mismatch",
    "pii",
    "not_appropriate",
    "hate_speech",
    "sexual_content",
    "fails_task",
    "political_content",
    "moral_judgement",
    "violence",
)
KNOWN = NAMES | frozenset(OASST)
GIVES: tuple[Kind, ...] = ("rated", "prompt")
KEYS = tuple(frozenset({key, "response"}) for key in PROMPT)
COLUMNS = frozenset({"attributes"}) | KNOWN
READS = COLUMNS | {"response"}
_TEXTS = frozenset({*PROMPT, "input", "context", "history", "response", "attributes", "system", "tools"})


def fits(row: Raw, asked: Asked) -> int:
    return 1 if asked.kind == "rated" or "attributes" in row or set(row) & (KNOWN | asked.ratings) - _TEXTS else -1


def parse(row: Raw, asked: Asked) -> Parsed:
    prompt, (response,) = answered(row, ("response",), question(row, asked), asked)
    if "attributes" in row:
        return Rated(prompt, response, attributes(row["attributes"], "attributes"), asked.where)
    rated = {name: value for name, value in row.items() if name in (KNOWN | asked.ratings) - _TEXTS}
    if not rated:
        others = sorted(name for name, value in row.items() if name not in _TEXTS and isinstance(value, int | float))
        way = f"; data.columns={{{others[0]}: {others[0]}}} makes {others[0]} one" if others else ""
        raise Malformed(f"at least one rating beside prompt and response ({', '.join(STEERLM)}, …{way})", f"keys {sorted(row)[:10]}")
    return Rated(prompt, response, ratings(rated, ""), asked.where)
