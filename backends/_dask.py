"""dask's scheduler, workers and nannies without the plain HTTP server that each would open, also where no dashboard is asked for.

What is left listens over TLS and asks whoever connects for the run's certificate (`_tls`).
"""

from __future__ import annotations

from typing import Any

import distributed
from distributed.utils import get_ip


class _NoHttp:
    def start_http_server(self, routes: object, dashboard_address: object, default_port: int = 0, ssl_options: object = None) -> None:
        """Nothing: dask has no option for it."""


class Scheduler(_NoHttp, distributed.Scheduler):
    """Over its own TLS port only."""


class Inside(_NoHttp, distributed.Worker):
    """In the scheduler's own process, with no port."""


class Worker(Inside):
    """Over its own TLS port only, on one address of the node. On a cluster `dask worker` is given its name."""

    def __init__(self, *arguments: Any, host: str | None = None, interface: str | None = None, **options: Any) -> None:
        """Without host and interface it would listen on all, and name this address to the scheduler."""
        super().__init__(*arguments, host=host or (None if interface else str(get_ip())), interface=interface, **options)


class Nanny(distributed.Nanny):
    """Starts such workers."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, worker_class=Worker, **options)


SETTINGS: dict[str, object] = {
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.no-workers-timeout": "10s",  # what is sent to a node that was just lost fails, it does not wait for ever
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}
"""Of every gang's dask."""
