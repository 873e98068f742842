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
    found = profile.of(history, last)
    if found is None:
        raise ValueError("no step of the run was timed yet: a profile needs one")
    return found


def render(found: Profile, console: Console) -> None:
    """Phases with their means and shares, then what the engine and the servers did."""
    table = Table("phase", box=None, header_style="dim")
    for name in ("s a step", "share", ""):
        table.add_column(name, justify="left" if not name else "right")
    for phase in found.phases:
        bar = "" if phase.within else "━" * round(BAR * min(1.0, phase.share))
        table.add_row(escape(f"{'  ' if phase.within else ''}{phase.label}"), f"{phase.seconds:.3f}", f"{phase.share:.1%}", f"[blue]{bar}[/]")
    table.add_row("[bold]Step[/]", f"[bold]{found.step_s:.3f}[/]", "", f"[dim]mean of {found.steps:,}[/]")
    console.print(table, highlight=False)
    if found.engine:
        words = [f"{profile.ENGINE[name]}: {profile.measure(name, value)}" for name, value in found.engine.items()]
        console.print("   ".join(words), highlight=False)
    for server in found.servers:
        console.print(
            f"{server.endpoint}: {server.server_s:.3f} s a step in the server, {server.wire_s:.3f} s on the wire", markup=False, highlight=False
        )
