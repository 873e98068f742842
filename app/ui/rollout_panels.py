"""The parts of the Rollouts page. Each is a fragment of its own, so that the table refreshes without the answer that is being read."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from ui import access, choose, compare_panels, frame
from ui.rollout_reader import chosen, key_of, sampled_answer, summary_of, valued_columns
from workbench import api
from workbench.api import Run
from workbench.rundir import rollouts
from workbench.rundir.rollouts import Query
from workbench.settings.stored import job, spec_tree, work
from workbench.views import rollouts as views
from workbench.views import text

ROWS_A_PAGE = 50
PAIRS_A_PAGE = 10


def open_one(run: Run, step: int, number: int) -> None:
    """Leave for the page of this rollout."""
    st.session_state[key_of(run, "chosen")] = (step, number)
    st.switch_page("pages/rollouts.py", query_params={"id": run.id})


def title(run: Run) -> None:
    """The heading, the run's state, and a choice of another run."""
    left, right = st.columns([3, 2], vertical_alignment="center")
    with left, st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown("## Rollouts", width="content", anchors=False)
        frame.state_badge(run.status)
        st.badge(frame.plain(text.title(work(spec_tree(run.dir))).upper()), color="gray")
    known = {other.id: other for other in api.runs() if not choose.unreadable(other)}
    wanted = right.selectbox(
        "Run",
        list(known),
        index=list(known).index(run.id),
        format_func=lambda run_id: compare_panels.label(known[run_id]),
        key=f"rollouts-run-{run.id}",
        label_visibility="collapsed",
    )
    if wanted != run.id:
        st.query_params["id"] = wanted
        st.rerun()


def none_yet(run: Run, ended: bool) -> None:
    """What stands here before the first file, and when there will be none."""
    if rollouts.steps(run.dir) or run.status.state.ended != ended:
        st.rerun()
    tree = spec_tree(run.dir)
    kind, settings = job(tree), tree.get("algorithm", {})
    samples = "rewards" in settings if kind == "train" else kind == "generate"
    with st.container(border=True, horizontal_alignment="center", key="empty"):
        st.markdown(f"### {'No rollouts yet' if samples and not ended else 'No rollouts'}", anchors=False, text_alignment="center")
        st.markdown(
            "PPO, GRPO and REINFORCE sample what they learn from, and `job=generate` answers prompts: each step's answers are listed here as soon as"
            " the step is done, with their rewards and every token's numbers.",
            text_alignment="center",
            width=560,
        )
        wait = "It ended before its first step was saved." if ended else "The list appears with the first step."
        why = "It trains on data and samples no rollouts." if kind == "train" else "It keeps no rollouts."
        what = f"algorithm is {frame.code(settings.get('name', '?'))}" if kind == "train" else f"job is {frame.code(kind)}"
        st.caption(f"This run's {what}. {wait if samples else why}", text_alignment="center")
        if access.may_change():
            st.page_link("pages/launch.py", label="Launch another run", icon=":material/rocket_launch:")
    _warn_of_damage(run)


def numbers(run: Run, ended: bool) -> None:
    """The newest step's headline, and rewards and lengths over the steps."""
    if run.status.state.ended != ended:
        st.rerun()
    summary = summary_of(run, rollouts.version(run.dir))
    _warn_of_damage(run)
    if summary.empty:
        return
    figures = views.headline(summary)
    with st.container(key="headline"):
        for column, figure in zip(st.columns(len(figures), gap="small"), figures, strict=True):
            column.metric(
                figure.label, figure.value, figure.note or None, help=figure.help, delta_color="off", delta_arrow="off", border=True, height="stretch"
            )
    drawn = [("Length", "mean of a step's answers", views.lengths)]
    if "reward" in valued_columns(run):
        drawn.insert(0, ("Reward", "mean of a step ± one standard deviation", views.reward))
    for (name, caption, draw), column in zip(drawn, st.columns(len(drawn)), strict=True):
        with column.container(border=True, gap=None):
            st.markdown(f"**{name}** :gray[{caption}]")
            st.plotly_chart(
                draw(summary, frame.theme()), theme=None, config={"displayModeBar": False}, key=f"rollouts-{name}-{run.id}", alt=f"{name} by step"
            )


def browse(run: Run, ended: bool) -> None:
    """The table of rollouts, and below it the chosen one."""
    frame.refreshed(table, None if ended else 1.0)(run)
    frame.refreshed(chosen)(run)


def table(run: Run) -> None:
    """The rollouts that match, a page at a time. The chosen one stays chosen when new ones push it down."""
    query = _asked(run)
    rows, total = _page(run, query, rollouts.version(run.dir))
    if rows.empty:
        st.info("No rollout matches the search and the filters.", icon=":material/search_off:")
        return
    shown = [(int(step), int(number)) for step, number in zip(rows["step"], rows["rollout"], strict=True)]
    _keep_chosen(run, shown)
    st.dataframe(
        _shown(rows, valued_columns(run)),
        key=key_of(run, "table"),
        hide_index=True,
        height=min(430, 35 * len(rows) + 38),
        on_select=lambda: _pick(run),
        selection_mode="single-row",
        alt=f"{len(rows)} of {total} rollouts with prompt, response and reward",
        column_config=_columns(rows),
    )
    first = query.offset + 1
    st.caption(f"{first:,}–{first + len(rows) - 1:,} of {total:,} rollouts. Select a row to read it below.")
    if st.session_state.pop(key_of(run, "picked"), False):
        st.rerun()


def compare(run: Run) -> None:
    """The same prompts' answers at two steps, side by side."""
    known = rollouts.steps(run.dir)
    left, middle, right = st.columns([2, 2, 3], vertical_alignment="bottom")
    newest = right.toggle("Follow the newest step", value=True, key=key_of(run, "newest"))
    after = known[-1] if newest else middle.selectbox("After: step", known[::-1], key=key_of(run, "after"))
    if newest:
        middle.selectbox("After: step", [after], disabled=True, key=key_of(run, f"after-{after}"))
    shared = _shared(run, int(after), rollouts.version(run.dir))
    if not shared:
        left.selectbox("Before: step", (), placeholder="none has the same prompts", disabled=True, key=key_of(run, f"before-none-{after}"))
        st.info(f"No other step answered a prompt of step {after:,}. Prompts repeat in the next epoch.", icon=":material/compare:")
        return
    before = left.selectbox(
        "Before: step", list(shared), format_func=lambda step: f"{step:,} · {shared[step]:,} prompts in common", key=key_of(run, f"before-{after}")
    )
    pairs = views.paired(rollouts.of_step(run.dir, int(before)), rollouts.of_step(run.dir, int(after)))
    changes = ""
    if "reward" in valued_columns(run):
        better = sum(new["reward"] > old["reward"] for old, new in pairs)
        worse = sum(new["reward"] < old["reward"] for old, new in pairs)
        changes = f": **{better:,}** with a higher reward, **{worse:,}** with a lower one"
    pages = max(1, -(-len(pairs) // PAIRS_A_PAGE))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.markdown(f"**{len(pairs):,}** prompts in both{changes}.", width="stretch")
        number = st.number_input(f"Page (of {pages:,})", 1, pages, key=key_of(run, f"pairs-{before}-{after}"), width=150) if pages > 1 else 1
    for old, new in pairs[(number - 1) * PAIRS_A_PAGE : number * PAIRS_A_PAGE]:
        with st.container(border=True, gap="small"):
            st.caption("Prompt")
            st.text(text.visible(views.gist(new["prompt"])))
            for column, answer in zip(st.columns(2), (old, new), strict=True):
                with column:
                    sampled_answer(answer, valued_columns(run))


def _asked(run: Run) -> Query:
    """The row of filters above the table."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        search = st.text_input(
            "Search", key=key_of(run, "search"), placeholder="words in a prompt or a response", live=True, icon=":material/search:", width="stretch"
        )
        ends = st.segmented_control("Answers", list(views.ENDS), format_func=views.ENDS.__getitem__, key=key_of(run, "ends"))
        valued = valued_columns(run)
        names = [name for name in rollouts.columns(run.dir) if name in valued and _sortable(name)]
        sorts = {name: views.SORTS.get(name) or name.removeprefix(rollouts.COMPONENT) for name in names}
        sort = st.selectbox("Sort by", list(sorts), format_func=sorts.__getitem__, key=key_of(run, "sort"), width=150)
        order = st.segmented_control(
            "Order",
            [":material/arrow_downward:", ":material/arrow_upward:"],
            default=":material/arrow_downward:",
            required=True,
            key=key_of(run, "order"),
            help="Highest or lowest first.",
        )
        with st.popover("Filters", icon=":material/filter_list:"):
            one, two = st.columns(2)
            first = one.number_input("From step", 0, value=None, key=key_of(run, "first"), placeholder="first")
            last = two.number_input("To step", 0, value=None, key=key_of(run, "last"), placeholder="newest")
            low = high = None
            if "reward" in valued:
                low = one.number_input("Min reward", value=None, key=key_of(run, "low"), placeholder="any")
                high = two.number_input("Max reward", value=None, key=key_of(run, "high"), placeholder="any")
            prompt_id = st.text_input("Prompt id", key=key_of(run, "prompt"), placeholder="any")
        query = Query(
            search=search,
            first_step=first or 0,
            last_step=rollouts.LAST if last is None else last,
            finish_reason=ends or "",
            prompt_id=prompt_id.strip(),
            min_reward=low,
            max_reward=high,
            sort=sort or "step",
            descending=order == ":material/arrow_downward:",
            limit=ROWS_A_PAGE,
        )
        pages = max(1, -(-_page(run, query, rollouts.version(run.dir))[1] // ROWS_A_PAGE))
        number = min(pages, st.session_state.get(key_of(run, "page"), 1))
        st.session_state[key_of(run, "page")] = number
        number = st.number_input(f"Page (of {pages:,})", 1, pages, key=key_of(run, "page"), width=140)
    return Query(**{**vars(query), "offset": (number - 1) * ROWS_A_PAGE})


def _sortable(name: str) -> bool:
    return name in views.SORTS or name.startswith(rollouts.COMPONENT)


def _shown(rows: pd.DataFrame, valued: set[str]) -> pd.DataFrame:
    """The table's columns: what people look for first."""
    parts = [name for name in rows if name.startswith(rollouts.COMPONENT)]
    shown = rows.reindex(columns=["step", "rollout", "prompt", "response", "reward", "response_tokens", "kl_sum", "finish_reason", *parts])
    shown["prompt"] = [text.visible(views.gist(prompt)) for prompt in rows["prompt"]]
    shown["response"] = [text.visible(" ".join(response.split())) for response in rows["response"]]
    shown["finish_reason"] = [[views.ENDS.get(reason, reason)] for reason in rows["finish_reason"]]
    return shown.drop(columns=[name for name in ("reward", "kl_sum") if name not in valued])


def _columns(rows: pd.DataFrame) -> dict[str, Any]:
    column = st.column_config
    parts = {
        name: column.NumberColumn(name.removeprefix(rollouts.COMPONENT), format="%.3f", width=78)
        for name in rows
        if name.startswith(rollouts.COMPONENT)
    }
    return {
        "step": column.NumberColumn("Step", width=64),
        "rollout": column.NumberColumn("#", width=52, help="The rollout's number in its step"),
        "prompt": column.TextColumn("Prompt", width=196),
        "response": column.TextColumn("Response", width=300),
        "reward": column.NumberColumn("Reward", format="%.3f", width=82),
        **parts,
        "response_tokens": column.NumberColumn("Tokens", width=72),
        "kl_sum": column.NumberColumn("KL", format="%.3f", width=78, help="Nats an answer, to the reference policy"),
        "finish_reason": column.MultiselectColumn("End", options=list(views.ENDS.values()), color=list(views.END_COLOURS.values()), width=100),
    }


def _keep_chosen(run: Run, shown: list[tuple[int, int]]) -> None:
    """The selected row is a place in the table: where the rows have moved, it moves with the chosen rollout."""
    if st.session_state.get(key_of(run, "shown")) == shown and key_of(run, "table") in st.session_state:
        return
    position = st.session_state.setdefault(key_of(run, "chosen"), shown[0])
    st.session_state[key_of(run, "shown")] = shown
    st.session_state[key_of(run, "table")] = {"selection": {"rows": [shown.index(position)] if position in shown else []}}


def _pick(run: Run) -> None:
    rows = st.session_state[key_of(run, "table")]["selection"]["rows"]
    shown = st.session_state[key_of(run, "shown")]
    if rows and rows[0] < len(shown):
        st.session_state[key_of(run, "picked")] = True
        st.session_state[key_of(run, "chosen")] = shown[rows[0]]


def _warn_of_damage(run: Run) -> None:
    if broken := rollouts.damaged(run.dir):
        names = ", ".join(frame.code(path.name) for path in broken[:5]) + (" …" if len(broken) > 5 else "")
        st.warning(f"Left out, because they cannot be read: {names} in {frame.code(rollouts.folder(run.dir))}.", icon=":material/warning:")


@st.cache_data(max_entries=64, show_spinner=False, hash_funcs={Run: lambda run: str(run.dir.path)})
def _page(run: Run, query: Query, version: int) -> tuple[pd.DataFrame, int]:
    return rollouts.page(run.dir, query)


@st.cache_data(max_entries=64, show_spinner=False, hash_funcs={Run: lambda run: str(run.dir.path)})
def _shared(run: Run, step: int, version: int) -> dict[int, int]:
    return rollouts.shared(run.dir, step)
