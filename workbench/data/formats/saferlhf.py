"""PKU-SafeRLHF's pairs."""

from workbench.data.formats._parts import Asked, Parsed, question
from workbench.data.formats._values import Raw, brief, filled, text, value
from workbench.data.rows import Kind, Malformed, Preference

SCHEMA = (
    '{"prompt", "response_0", "response_1", "better_response_id": 0 or 1}; by safety with data.columns={better_response_id: safer_response_id} '
    "(PKU-SafeRLHF)"
)
GIVES: tuple[Kind, ...] = ("preference", "conversation", "unpaired", "prompt")
KEYS = (frozenset({"prompt", "response_0", "response_1"}),)
NEEDS = (KEYS[0] | {"better_response_id"},)
READS = frozenset({"response_0", "response_1", "better_response_id"})


def fits(row: Raw, asked: Asked) -> int:
    return 2


def parse(row: Raw, asked: Asked) -> Parsed:
    better = value(row, "better_response_id")
    if isinstance(better, bool) or better not in (0, 1):
        raise Malformed("better_response_id: 0 or 1", brief(better))
    said = [filled(text(row, key), key) for key in ("response_0", "response_1")]
    return Preference(question(row, asked), said[int(better == 1)], said[int(better == 0)], where=asked.where)
