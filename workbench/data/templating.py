"""The process that renders chat templates (`template_process`), one for this process: started at the first, ended with it."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import cast

from workbench.data.limits import ended_by
from workbench.data.template_process import MEMORY_BYTES, Rendering, Request

RENDER_CPU_S = 2
BATCH = 256
"""Renderings that are asked for at once."""
TIMEOUTS = 20
"""So many renderings may take too long before the template is refused as a whole."""


class Refused(Exception):
    """The template makes no text of these messages; the message says why."""


def render(template: str, renderings: Sequence[Rendering], names: Mapping[str, object], of: str) -> list[str | Refused]:
    """The texts that a template makes, each or why there is none. `names` are the special tokens; `of` says whose template it is.

    Raises:
        ValueError: `TIMEOUTS` renderings took too much time or memory.
    """
    texts: list[str | Refused] = []
    ended = 0
    with _lock:
        for start in range(0, len(renderings), BATCH):
            batch = renderings[start : start + BATCH]
            answers = _ask(template, batch, names)
            for each in batch if answers is None else ():
                (answer,) = (_ask(template, [each], names) if len(batch) > 1 else None) or [None]
                ended += answer is None
                texts.append(Refused(_why()) if answer is None else _text(answer))
                if ended >= TIMEOUTS:
                    raise ValueError(f"the chat template of {of} is refused: it was ended {ended} times: {_why()}")
            texts += [_text(answer) for answer in answers or ()]
    return texts


def _text(answer: Mapping[str, str]) -> str | Refused:
    return answer["text"] if "text" in answer else Refused(answer["error"])


def _ask(template: str, renderings: Sequence[Rendering], names: Mapping[str, object]) -> list[dict[str, str]] | None:
    """The answers; None where the process was ended by one of them."""
    request: Request = {"template": template, "names": dict(names), "cpu_s": RENDER_CPU_S, "renderings": renderings}
    return _process().ask(json.dumps(request).encode() + b"\n")


class _Process:
    def __init__(self) -> None:
        self.pid = os.getpid()
        command = [sys.executable, "-m", "workbench.data.template_process"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def ask(self, line: bytes) -> list[dict[str, str]] | None:
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(line)
            self.process.stdin.flush()
            reply = self.process.stdout.readline()
        except BrokenPipeError:
            reply = b""
        if reply.endswith(b"\n"):
            return cast(list[dict[str, str]], json.loads(reply))
        _ended[:] = [ended_by(self.process.wait(), RENDER_CPU_S, MEMORY_BYTES)]
        return None

    @property
    def alive(self) -> bool:
        return self.pid == os.getpid() and self.process.poll() is None

    def end(self) -> None:
        if self.pid == os.getpid():
            self.process.kill()
            self.process.communicate()


_lock = threading.Lock()
_running: list[_Process] = []
"""The process, if one is running. A fork of this process starts its own."""
_ended: list[str] = []
"""Why the last process ended."""


def _why() -> str:
    return _ended[0]


def _process() -> _Process:
    if not _running or not _running[0].alive:
        _end()
        _running.append(_Process())
    return _running[0]


def _end() -> None:
    while _running:
        _running.pop().end()


atexit.register(_end)
