"""A rank that does what a small script says: `python -m tests.backends.stand_in_rank RUN_DIR SCRIPT`. The script gets the run's folder as argv[1]."""

import json
import os
import signal
import sys
import time
from pathlib import Path

from workbench.rundir import beats
from workbench.rundir.events import EventWriter
from workbench.rundir.files import ByteCursor, write_atomic
from workbench.rundir.store import RunDir


def main() -> int:
    run, script = RunDir(Path(sys.argv[1])), sys.argv.pop(2)
    rank, attempt = int(os.environ["RANK"]), int(os.environ["WORKBENCH_ATTEMPT"])
    events = EventWriter(run) if rank == 0 else None

    def write(kind, **values):
        if events:
            events.write(kind, **values)

    def stopping():
        return any(request["request"] == "stop" and request.get("attempt") in (None, attempt) for request in run.requests(ByteCursor()))

    def steps(n, seconds=0.01, keep=0, hold=0):
        """Learns one number; with `keep` it is saved every so many steps and at a stop, and the next attempt goes on from there.

        With `hold` the first attempt stands still after that step: what is done to it there need not be quick.
        """
        write("phase", message="loading the model", done=1, total=1)
        saved = run.path / f"saved-{rank}.json"
        first, loss = json.loads(saved.read_text()) if saved.exists() else (0, 1.0)
        write("state", state="running", step=first, total_steps=n)
        for step in range(first + 1, n + 1):
            time.sleep(seconds)
            loss = 0.9 * loss + 1 / step
            write("step", step=step, metrics={"loss": loss})
            while not (stop := stopping()) and step == hold and attempt == 1:
                time.sleep(0.05)
            if keep and (stop or step % keep == 0):
                write_atomic(saved, json.dumps([step, loss]))
            if stop:
                write("end", reason="stopped", step=step)
                sys.exit(0)
        write("end", reason="completed", step=n)

    known = {"beats": beats, "json": json, "os": os, "signal": signal, "sys": sys, "time": time, "Path": Path}
    exec(compile(script, "script", "exec"), {**known, **locals(), "__name__": "__main__"})
    return 0


if __name__ == "__main__":
    sys.exit(main())
