"""`workbench profile`: where the seconds of a run's steps go, as a table in the terminal. (The Run page draws the same: `workbench.views.profile`.)"""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from workbench.rundir.lines import Event
from workbench.views import History, profile
from workbench.views.profile import Profile

BAR = 24


def of_events(events: Iterable[Event], last: int | None = None) -> Profile:
    """Raises ValueError where no step was timed."""
    history = History()
    history.extend(events)
    measured = profile.of(history, last)
    if measured is None:
        raise ValueError("no step of the run was timed yet: a profile needs one")
    return measured


def render(measured: Profile, console: Console) -> None:
    """Phases with their means and shares, then what the engine and the servers did."""
    table = Table("phase", box=None, header_style="dim")
    for name in ("s a step", "share", ""):
        table.add_column(name, justify="left" if not name else "right")
    for phase in measured.phases:
        bar = "" if phase.within else "━" * round(BAR * min(1.0, phase.share))
        table.add_row(escape(f"{'  ' if phase.within else ''}{phase.label}"), f"{phase.seconds:.3f}", f"{phase.share:.1%}", f"[blue]{bar}[/]")
    table.add_row("[bold]Step[/]", f"[bold]{measured.step_s:.3f}[/]", "", f"[dim]mean of {measured.steps:,}[/]")
    console.print(table, highlight=False)
    if measured.engine:
        labels = [f"{profile.ENGINE[name]}: {profile.measure(name, value)}" for name, value in measured.engine.items()]
        console.print("   ".join(labels), highlight=False)
    for server in measured.servers:
        console.print(
            f"{server.endpoint}: {server.server_s:.3f} s a step in the server, {server.wire_s:.3f} s on the wire", markup=False, highlight=False
        )
