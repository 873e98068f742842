"""One rollout for reading, as HTML: its tokens in colour, its reward's components, its prompt over the steps."""

from __future__ import annotations

import html

import numpy as np
import pandas as pd

from workbench.notebook.widgets import parts
from workbench.rundir.rollouts import Rollout
from workbench.views import pictures, text
from workbench.views import rollouts as views
from workbench.views.pictures import Line

FOLLOWED = 10


def heading(rollout: Rollout) -> str:
    """Which it is, what it got, and its prompt."""
    badges = [
        parts.badge(views.ENDS.get(rollout["finish_reason"], rollout["finish_reason"]), views.END_COLOURS.get(rollout["finish_reason"], "gray"))
    ]
    badges += [parts.badge(f"reward {text.number(rollout['reward'], 3)}", "blue")] if rollout["reward"] is not None else []
    badges += [parts.badge(f"{name} {text.number(value, 3)}") for name, value in views.components(rollout).items()]
    badges += [parts.badge(f"KL {text.number(rollout['kl_sum'], 3)} nats")] if rollout["kl_sum"] is not None else []
    about = (
        f"prompt {rollout['prompt_id']} · sample {rollout['sample']} · {rollout['prompt_tokens']:,} + {rollout['response_tokens']:,} tokens"
        f" · weights {rollout['weights_version']:,}"
    )
    name = f'<span class="wb-name" role="heading" aria-level="4">Step {rollout["step"]:,} · rollout {rollout["rollout"]:,}</span>'
    prompt = f'<div class="wb-title">Prompt</div><div class="wb-row wb-prompt" tabindex="0">{parts.plain(rollout["prompt"])}</div>'
    return f'<div class="wb-line">{name}{"".join(badges)}</div><div class="wb-sub">{parts.plain(about)}</div>{prompt}'


def tokens(rollout: Rollout, name: str | None) -> str:
    """The answer, in the colours of the quantity of this name; without one as plain text."""
    known = {quantity.name: (quantity, values) for quantity, values in views.quantities(rollout).items()}
    if not known:
        return f'<div class="wb-title">Answer</div><div class="wb-row wb-response">{parts.plain(rollout["response"]) or "(empty answer)"}</div>'
    quantity, values = known.get(name or "") or next(iter(known.values()))
    shown = views.coloured(rollout["pieces"], values, signed=quantity.signed)
    return (
        f'<div class="wb-sub">{html.escape(quantity.help)}</div>{views.legend(values, signed=quantity.signed)}'
        f'<div class="wb-row wb-response" tabindex="0" aria-label="The answer by its tokens">{shown}</div>'
    )


def over_steps(answers: pd.DataFrame) -> str:
    """The answers to one prompt, newest first, below a curve of their rewards."""
    means = answers.dropna(subset=["reward"]).groupby("step", as_index=False).agg({"reward": "mean"})
    curve = pictures.curve([Line("reward", np.asarray(means["step"], float), np.asarray(means["reward"], float), dots=True)], "Reward of this prompt")
    cards = "".join(parts.rollout(row) for row in answers.iloc[::-1].head(FOLLOWED).to_dict("records"))
    more = f" · the newest {FOLLOWED}" if len(answers) > FOLLOWED else ""
    counted = f"{len(answers):,} answers to this prompt at {answers['step'].nunique():,} steps{more}"
    return f'<details><summary class="wb-title">{counted}</summary>{curve}<div class="wb-answers">{cards}</div></details>'
