"""`workbench serve`: checkpoints and models behind an OpenAI-compatible HTTP API."""

from __future__ import annotations

import json
import re
import time
from typing import Annotated

import typer
from rich.markup import escape

from workbench import api
from workbench.serve import discovery
from workbench.terminal.console import Console
from workbench.terminal.on_checkpoints import print_launched

out, err = Console(), Console(stderr=True)
_SETTING = re.compile(r"[+~]*[a-z_]+(\.[A-Za-z_.]+)?=.*", re.DOTALL)
POLL_S = 0.2


def serve(
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            metavar="CHECKPOINT...",
            help="What is served, side by side: a run (`id`, `id:step`, `latest`), a checkpoint's folder, an exported or other Hugging Face directory, a hub id"
            " or a .gguf file; then key=value, as in `job.port=8000 job.slots=16`.",
        ),
    ],
    wait: Annotated[bool, typer.Option("--wait/--detach", help="Return when it is serving, or at once; it serves on either way.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a script: the run, the URL and the file with URL and token.")] = False,
) -> None:
    """Serve checkpoints and models by an OpenAI-compatible HTTP API, to you alone, until `workbench stop`, or nobody asks for an hour."""
    overrides = [word for word in checkpoints if _SETTING.fullmatch(word)]
    run = api.serve([word for word in checkpoints if word not in overrides], overrides)
    if not as_json:
        print_launched(run)
    url = _until_serving(run) if wait else None
    file = run.dir.path / "endpoints" / discovery.HTTP_FILE
    if as_json:
        print(json.dumps({"id": run.id, "url": url, "file": str(file)}))
        return
    if url:
        out.print(f"serving {', '.join(model.id for model in api.endpoint(run.id).models())}", markup=False, highlight=False, soft_wrap=True)
        out.print(f"{url}/v1  token in {file}", markup=False, highlight=False, soft_wrap=True)
    out.print(f"to end it: workbench stop {run.id}", markup=False, highlight=False, soft_wrap=True)


def _until_serving(run: api.Run) -> str:
    """The URL. Raises ValueError where the run ends instead."""
    said = ""
    with err.status("starting") as status:
        while True:
            try:
                return api.endpoint(run.id).url
            except ValueError:
                now = run.status
                if now.state.ended:
                    raise ValueError(f"run {run.id} is {now.state}: {now.message}\n{run.log_tail(lines=12)}") from None
                if now.message != said:
                    said = now.message
                    status.update(escape(said or "starting"))
                time.sleep(POLL_S)
