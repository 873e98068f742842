"""`workbench app-url` and `workbench team`: who gets into the app."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from workbench.machines import logins
from workbench.views import text

out = Console()
team = typer.Typer(help="Who may read in an app that is started with WORKBENCH_APP=team.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]


def app_url(as_json: Json = False) -> None:
    """The links that open this user's running apps, with their login token: do not pass them on."""
    running = logins.running_apps()
    if as_json:
        print(json.dumps([{"url": app.url, "port": app.port, "pid": app.pid} for app in running]))
        return
    if not running:
        raise ValueError(f"no app of this user runs on this machine (by {logins.state_folder()}). Start one: workbench app")
    for app in running:
        print(app.url)


@team.command("add")
def add(
    name: Annotated[str, typer.Argument(help="What the app calls them.")],
    origin: Annotated[
        str | None, typer.Option(help="The app's address for browsers; without it the running team app's, or $WORKBENCH_ORIGIN.")
    ] = None,
) -> None:
    """Let somebody read. Prints their login link, once: only its hash is kept."""
    running = [app.origin for app in logins.running_apps() if not app.token]
    address = origin or next(iter(running), "") or next(iter(os.environ.get("WORKBENCH_ORIGIN", "").replace(",", " ").split()), "")
    if not address:
        raise ValueError("which address do browsers use? No team app of this user runs here; name it: --origin https://wb.example.org")
    print(f"{address.rstrip('/')}/?token={logins.add_member(name)}")


@team.command("list")
def list_(as_json: Json = False) -> None:
    """Who may read."""
    members = logins.members()
    if as_json:
        print(json.dumps([{"name": member.name, "added": member.added} for member in members]))
        return
    if not members:
        out.print("Nobody is in the team yet: workbench team add NAME")
        return
    table = Table("member", "added", box=None, header_style="dim")
    for member in members:
        table.add_row(member.name, text.clock(member.added))
    out.print(table)


@team.command("remove")
def remove(name: str) -> None:
    """End somebody's login: their open pages stop with the next update."""
    logins.remove_member(name)
    out.print(f"{name} is out", markup=False, highlight=False)
