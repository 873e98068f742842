"""The Cluster page: headline, nodes as tiles, my runs' processes, queue and partitions."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import streamlit as st

from ui import access, choose, frame
from workbench import api
from workbench.api import Allocation, Cluster, Where
from workbench.backends.base import Node
from workbench.rundir.store import Status
from workbench.views import machines as views
from workbench.views import text

PLACES: dict[Where, str] = {"slurm": "SLURM", "local": "This machine"}
EVERY_S: dict[Where, float] = {"slurm": 5.0, "local": 2.0}
LARGE_TILES = 32
MOST_ROWS = 12
MOST_JOBS = 500
"""Mine come first. Tens of thousands would travel to each browser every few seconds."""
KINDS = {"idle": "idle", "part": "partly given", "full": "full", "down": "takes no jobs"}


def style() -> None:
    """The page's style sheet."""
    st.html(Path(__file__).with_name("cluster.css"))


def draw(where: Where) -> None:
    """All of the page below its title; a fragment that refreshes itself."""
    cluster = api.cluster(where)
    st.caption(f"{frame.plain(_title(cluster))} · read {text.ago(cluster.survey.time)} · refreshes by itself")
    if cluster.survey.error:
        st.error(f"Not everything could be read: {frame.plain(cluster.survey.error)}", icon=":material/error:")
    if cluster.survey.nodes:
        _headline(cluster)
        if where == "local":
            _html(f'<div class="wb-nodes wb-one">{_machine(cluster.survey.nodes[0])}</div>')
    st.markdown("#### My runs", anchors=False)
    for allocation in cluster.allocations:
        _allocation(allocation, cluster)
    if not cluster.allocations:
        _nothing_goes_on(where)
    if where == "slurm" and cluster.survey.nodes:
        _nodes(cluster)
        _queue(cluster)
        _partitions(cluster)


def _title(cluster: Cluster) -> str:
    survey = cluster.survey
    if survey.backend == "local" and survey.nodes:
        return f"{survey.nodes[0].name} · {views.each_has(survey.nodes)}"
    return survey.title


def _headline(cluster: Cluster) -> None:
    figures = views.headline(cluster)
    with st.container(key="cluster-headline"):
        for column, each in zip(st.columns(len(figures), gap="small"), figures, strict=True):
            column.metric(
                each.label, each.value, each.note or None, help=each.help, delta_color="off", delta_arrow="off", border=True, height="stretch"
            )


def _html(body: str) -> None:
    """HTML of this page's classes, in the theme's colours."""
    blue, orange, green, _, _, cyan, *_ = frame.theme().palette
    st.html(f'<div style="--idle:{green};--part:{cyan};--full:{blue};--down:{orange}">{body}</div>')


def _nodes(cluster: Cluster) -> None:
    nodes, mine = cluster.survey.nodes, views.mine(cluster)
    seen = {views.kind(node) for node in nodes}
    key = "".join(f'<span style="--tone:var(--{kind})">{label}</span>' for kind, label in KINDS.items() if kind in seen)
    tiles = "".join(_tile(node, mine.get(node.name, [])) for node in nodes)
    st.markdown("#### Nodes", anchors=False)
    _html(f'<div class="wb-key">{key}</div><div class="wb-nodes{" wb-many" * (len(nodes) > LARGE_TILES)}">{tiles}</div>')


def _tile(node: Node, runs: list[str]) -> str:
    gauges = views.gauges(node)
    tooltip = "\n".join([f"{node.name}: {node.state}", *(f"{gauge.label}: {gauge.caption}" for gauge in gauges), node.reason, *runs]).strip()
    parts = [
        f"<header><b>{html.escape(node.name)}</b><span>{html.escape(node.state)}</span></header>",
        *(_gauge(gauge) for gauge in gauges if node.usable),
        f'<div class="wb-reason">{html.escape(node.reason)}</div>' if node.reason and not node.usable else "",
        f'<div class="wb-names">{html.escape(", ".join(runs))}</div>' if runs else "",
    ]
    return f'<div class="wb-node wb-{views.kind(node)}{" wb-mine" * bool(runs)}" title="{html.escape(tooltip)}">{"".join(parts)}</div>'


def _gauge(gauge: views.Gauge, wide: bool = False) -> str:
    label = html.escape(gauge.caption if wide else gauge.brief)
    return (
        f'<div class="wb-gauge{" wb-wide-gauge" * wide}"><small>{html.escape(gauge.label)}</small>'
        f'<div class="wb-track"><i style="width:{gauge.share:.1%}"></i></div><em>{label}</em></div>'
    )


def _machine(node: Node) -> str:
    """This machine: a bar a core, then memory and GPUs."""
    cores = "".join(f'<div title="core {n}: {busy:.0%}"><i style="height:{busy:.0%}"></i></div>' for n, busy in enumerate(node.cores))
    memory = views.gauges(node)[-1]
    gauges = "".join(_gauge(gauge, wide=True) for gauge in (memory, *views.devices(node)))
    head = f"<header><b>Cores</b><span>{html.escape(views.gauges(node)[0].caption)}</span></header>"
    return f'<div class="wb-node wb-{views.kind(node)}">{head}<div class="wb-cores" style="--count:{len(node.cores)}">{cores}</div><div class="wb-gauges">{gauges}</div></div>'


def _allocation(run: Allocation, cluster: Cluster) -> None:
    with st.container(border=True, key=f"allocation-{run.run_id}"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(f"**{frame.plain(run.name)}**", width="content")
            frame.state_badge(Status(state=run.state))
            st.badge(frame.plain(text.title(run.work).upper()), color="gray")
            if run.backend == "slurm":
                st.badge(f"job {frame.plain(str(run.job_id or '…'))}", color="gray", icon=":material/dns:")
            with st.container(horizontal=True, horizontal_alignment="right"):
                if st.button("Open", icon=":material/open_in_new:", key=f"open-{run.run_id}", type="tertiary"):
                    choose.open_run(run.run_id)
        step = f"step {run.step:,} of {run.total_steps:,} · " if run.total_steps else ""
        st.caption(f"{step}{frame.plain(views.totals(run))}")
        if rows := views.ranks(run):
            _processes(rows, run, cluster)


def _processes(rows: list[dict[str, Any]], run: Allocation, cluster: Cluster) -> None:
    hosts = [node for node in cluster.survey.nodes if node.name in run.hosts]
    cpus = max([node.cpus for node in hosts], default=1)
    memory = max([node.memory_mib for node in hosts], default=1024) / 1024
    filled = {name for row in rows for name, value in row.items() if value not in (None, "")}
    column = st.column_config
    st.dataframe(
        rows,
        hide_index=True,
        height="content" if len(rows) <= MOST_ROWS else 35 * (MOST_ROWS + 1),
        key=f"processes-{run.run_id}",
        alt=f"{len(rows)} processes of {run.name} with the CPUs and the memory that each uses",
        column_order=[name for name in rows[0] if name in filled],
        column_config={
            "Process": column.TextColumn(width=124),
            "Node": column.TextColumn(width=96),
            "CPUs": column.ProgressColumn(format="%.2f", min_value=0, max_value=float(cpus), width=120, help="CPUs that the process keeps busy"),
            "Memory": column.ProgressColumn(format="%.2f GiB", min_value=0, max_value=memory, width=130, help="Resident, against the node's"),
            "GPU": column.ProgressColumn(format="%d %%", min_value=0, max_value=100, width=110, help="Share of the time in which its GPU was busy"),
            "GPU memory": column.NumberColumn(format="%.1f GiB", width=110, help="Reserved by the process"),
            "Step": column.TextColumn(width=70, alignment="right"),
            "Doing": column.TextColumn(width="medium"),
        },
    )


def _nothing_goes_on(where: Where) -> None:
    with st.container(border=True, horizontal_alignment="center", key="empty"):
        st.markdown(f"Nothing of yours runs {'here' if where == 'local' else 'there now'}.", text_alignment="center")
        if access.may_change():
            st.page_link("pages/launch.py", label="Launch a run", icon=":material/rocket_launch:")


def _queue(cluster: Cluster) -> None:
    st.markdown("#### Queue", anchors=False)
    rows = views.queue(cluster)
    if not rows:
        st.caption("No job waits or runs.")
        return
    column = st.column_config
    st.dataframe(
        rows[:MOST_JOBS],
        hide_index=True,
        height="content" if len(rows) <= MOST_ROWS else 35 * (MOST_ROWS + 1),
        key="cluster-queue",
        alt=f"{len(rows)} jobs in SLURM's queue",
        column_config={"Job": column.TextColumn(width=64), "Start": column.TextColumn(width=190), "Reason": column.TextColumn(width="medium")},
    )

    if len(rows) > MOST_JOBS:
        st.caption(f"And {len(rows) - MOST_JOBS:,} more of others.")


def _partitions(cluster: Cluster) -> None:
    st.markdown("#### Partitions", anchors=False)
    st.dataframe(views.partitions(cluster), hide_index=True, height="content", key="cluster-partitions", alt="SLURM's partitions and their nodes")
    st.caption("\\* where a job goes that names no partition.")
