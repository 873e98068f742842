"""verl's rows."""

from workbench.data.formats._parts import Asked, Parsed, prompt
from workbench.data.formats._values import Raw, as_text, value
from workbench.data.rows import Kind, Malformed, PromptOnly

SCHEMA = (
    '{"prompt": messages, "reward_model": {"ground_truth"}[, "data_source", …]}: the ground truth becomes the columns ground_truth and answer (verl)'
)
GIVES: tuple[Kind, ...] = ("prompt",)
KEYS = (frozenset({"prompt", "reward_model"}),)
READS = frozenset({"prompt"})


def fits(row: Raw, asked: Asked) -> int:
    return 2 if isinstance(row["reward_model"], dict) else -1


def parse(row: Raw, asked: Asked) -> Parsed:
    """The columns `data_source`, `ability`, `extra_info` and `reward_model` are kept as they are."""
    reward_model = value(row, "reward_model")
    if not isinstance(reward_model, dict) or reward_model.get("ground_truth") is None:
        raise Malformed("reward_model: an object with a ground_truth", f"{type(reward_model).__name__} {str(reward_model)[:60]}")
    columns = {"ground_truth": as_text(reward_model["ground_truth"], "reward_model.ground_truth")}
    return PromptOnly(prompt(value(row, "prompt"), "prompt", asked), columns, asked.where)
