"""Policy endpoints: launched, found and asked."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.jobs.runs import Run, get, runs, submit
from workbench.rundir.store import State
from workbench.serve import discovery
from workbench.serve.completions import Completions
from workbench.settings import stored
from workbench.settings.composing import SpecError, quoted
from workbench.settings.spec import compose

KEYS = ("name", "seed", "job", "model", "backend", "watch")


def serve(checkpoints: Sequence[str], overrides: Sequence[str] = (), once: str = "") -> Run:
    """Launch an endpoint for these, side by side. It is asked once it says where it is: `endpoint`.

    Args:
        checkpoints: each a run's id (`id:step`, `latest`), a checkpoint's folder, or a model as `model.source` names it: a Hugging Face directory (an export,
            say), a hub id, a .gguf file.
        overrides: `key=value` of the job, the layout and the backend: `["job.port=8000", "model.tensor_parallel=2", "backend.ranks_per_node=2"]`.
        once: a name of the user's, as of `submit`.

    Raises:
        SpecError: a wrong override, or no such checkpoint or model.
    """
    if not checkpoints:
        raise ValueError("name what is to be served: a run, a checkpoint's folder, or a model")
    if wrong := [word.partition("=")[0] for word in overrides if word.split("=")[0].split(".")[0] not in KEYS]:
        raise SpecError([(wrong[0], f"an endpoint does not read it; it reads {', '.join(KEYS)}")])
    return submit(compose(["job=serve", "name=serve", f"job.checkpoints={quoted(list(checkpoints))}", *overrides]), once)


def endpoint(run_id: str) -> Completions:
    """The client of a run's endpoint.

    Raises:
        ValueError: no such run, it is no endpoint, or it is not serving (yet, or any more); the message has the reason.
    """
    run = get(run_id)
    if stored.job(stored.spec_tree(run.dir)) != "serve":
        raise ValueError(f"run {run.id} is no endpoint: it is a job of the kind {stored.job(stored.spec_tree(run.dir))}")
    status = run.status
    if status.state != State.RUNNING:
        raise ValueError(f"run {run.id} is not serving: it is {status.state}{f' ({status.message})' if status.message else ''}")
    try:
        url, token = discovery.read_http(run.dir.path / "endpoints" / discovery.HTTP_FILE)
    except FileNotFoundError:
        raise ValueError(f"run {run.id} is not serving yet{f': {status.message}' if status.message else ''}") from None
    return Completions(url, token, discovery.context(run.dir.path, discovery.HTTP, url) if url.startswith("https:") else None)


def endpoints() -> list[Run]:
    """The endpoints that are alive, newest first: starting, or serving."""
    return [run for run in runs() if stored.job(stored.spec_tree(run.dir)) == "serve" and not run.status.state.ended]
