"""One rollout for reading: its tokens in colour, its reward's components, its prompt over the steps."""

from __future__ import annotations

import html
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from ui import frame
from workbench.api import Run
from workbench.rundir import rollouts
from workbench.rundir.rollouts import Rollout
from workbench.views import rollouts as views
from workbench.views import text

FOLLOWED = 40


def chosen(run: Run) -> None:
    """The chosen rollout: its tokens in colour, its reward's components; or its prompt over the steps."""
    position = st.session_state.get(key_of(run, "chosen"))
    if position is None:
        return
    rollout = rollouts.one(run.dir, *position)
    if rollout is None:
        st.info(f"Rollout {position[1]} of step {position[0]} is no longer there: its step was sampled again.", icon=":material/history:")
        return
    with st.container(border=True, key="rollout"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(f"#### Step {rollout['step']:,} · rollout {rollout['rollout']:,}", width="content", anchors=False)
            end_badge(rollout["finish_reason"])
            st.caption(
                f"prompt {frame.code(rollout['prompt_id'])} · sample {rollout['sample']} · {rollout['prompt_tokens']:,} + {rollout['response_tokens']:,} tokens"
                f" · weights {rollout['weights_version']:,}",
                width="content",
            )
        tokens, over_steps = st.tabs(
            [":material/palette: Tokens", ":material/timeline: Follow this prompt"], key=f"tab-rollout-{run.id}", on_change="rerun"
        )
        with tokens:
            if tokens.open:
                _tokens(rollout, run)
        with over_steps:
            if over_steps.open:
                _follow(rollout, run)


def _tokens(rollout: Rollout, run: Run) -> None:
    left, right = st.columns([4, 1], gap="medium")
    with left:
        st.caption("Prompt")
        st.html(f'<div class="wb-row wb-prompt">{html.escape(text.visible(rollout["prompt"]))}</div>')
        by_name = {quantity.name: (quantity, values) for quantity, values in views.quantities(rollout).items()}
        if not by_name:
            st.caption("Response")
            st.text(text.visible(rollout["response"]) or "(empty answer)")
        else:
            name = st.segmented_control(
                "Colour the response's tokens by",
                list(by_name),
                format_func=lambda name: by_name[name][0].label,
                default=next(iter(by_name)),
                required=True,
                key=key_of(run, "quantity"),
            )
            quantity, values = by_name[name if name in by_name else next(iter(by_name))]
            st.caption(quantity.help)
            st.html(views.legend(values, frame.theme(), quantity.signed))
            st.html(f'<div class="wb-row wb-response">{views.coloured(rollout["pieces"], values, frame.theme(), quantity.signed)}</div>')
    with right:
        if rollout["reward"] is not None:
            st.metric("Reward", text.number(rollout["reward"]), border=True)
        else:
            st.metric(
                "Log-prob",
                text.number(_total(rollout["rollout_logprobs"])),
                "nats, the whole answer",
                delta_color="off",
                delta_arrow="off",
                border=True,
            )
        if rollout["kl_sum"] is not None:
            st.metric("KL", text.number(rollout["kl_sum"]), "nats", delta_color="off", delta_arrow="off", border=True)
        if parts := views.components(rollout):
            st.caption("Components of the reward")
            st.dataframe(
                pd.DataFrame({"Component": list(parts), "Value": list(parts.values())}),
                hide_index=True,
                alt="The reward's components",
                column_config={"Value": st.column_config.NumberColumn(format="%.3f")},
            )


def _follow(rollout: Rollout, run: Run) -> None:
    answers = rollouts.follow(run.dir, rollout["prompt_id"])
    steps = answers["step"].nunique()
    st.markdown(
        f"**{len(answers):,}** answers at **{steps:,}** {'step' if steps == 1 else 'steps'} :gray[to] {frame.plain(views.gist(rollout['prompt']))}"
    )
    if "reward" in valued_columns(run):
        figure = views.followed(answers, frame.theme())
        st.plotly_chart(figure, theme=None, config={"displayModeBar": False}, key=f"followed-{run.id}", alt="Rewards of this prompt")
    for answer in answers.iloc[::-1].head(FOLLOWED).to_dict("records"):
        with st.container(border=True):
            sampled_answer(answer, valued_columns(run))
    if len(answers) > FOLLOWED:
        st.caption(f"The newest {FOLLOWED} of {len(answers):,} answers.")


def _total(values: Sequence[float] | None) -> float | None:
    return None if values is None else sum(values)


def sampled_answer(answer: Mapping[Hashable, Any], valued: set[str]) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f":gray[Step {answer['step']:,} · sample {answer['sample']}]", width="content")
        if "reward" in valued:
            st.badge(f"reward {text.number(answer['reward'], 3)}", color="blue")
        end_badge(answer["finish_reason"])
    st.text(text.visible(answer["response"]) or "(empty answer)")


def end_badge(reason: str) -> None:
    st.badge(views.ENDS.get(reason) or frame.plain(reason), color=views.END_COLOURS.get(reason, "gray"))


def valued_columns(run: Run) -> set[str]:
    """The columns in which some rollout has a value: of a run without rewards, rewards are neither shown nor asked for."""
    summary = summary_of(run, rollouts.version(run.dir))
    columns = set(rollouts.columns(run.dir))
    if summary["rewarded"].to_numpy(int).sum() == 0:
        columns.discard("reward")
    if not np.isfinite(summary["kl_mean"].to_numpy(float)).any():
        columns.discard("kl_sum")
    return columns


def key_of(run: Run, part: str) -> str:
    return f"rollouts-{part}-{run.id}"


@st.cache_data(max_entries=64, show_spinner=False, hash_funcs={Run: lambda run: str(run.dir.path)})
def summary_of(run: Run, version: int) -> pd.DataFrame:
    return rollouts.summary(run.dir)
