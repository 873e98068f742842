"""The process that renders chat templates (`template_process`), one for this process: started at the first, ended with it."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import cast

from workbench.data.limits import ended_by
from workbench.data.template_process import MEMORY_BYTES, Request

RENDER_CPU_S = 10
WAY_OUT = "put a chat_template.jinja without that beside the model"


def render(template: str, messages: list[dict[str, str]], add_generation_prompt: bool, names: Mapping[str, object], of: str) -> str:
    """The text that a template makes of messages. `names` are the special tokens; `of` says whose template it is.

    Raises:
        ValueError: the template raises an error, writes too much, or takes too much time or memory.
    """
    request: Request = {
        "template": template,
        "messages": messages,
        "add_generation_prompt": add_generation_prompt,
        "names": dict(names),
        "cpu_s": RENDER_CPU_S,
    }
    with _lock:
        reply = _process().ask(json.dumps(request).encode() + b"\n")
    if "error" in reply:
        raise ValueError(f"the chat template of {of} is refused: {reply['error']}; {WAY_OUT}")
    return reply["text"]


class _Process:
    def __init__(self) -> None:
        self.pid = os.getpid()
        command = [sys.executable, "-m", "workbench.data.template_process"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def ask(self, line: bytes) -> dict[str, str]:
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(line)
            self.process.stdin.flush()
            reply = self.process.stdout.readline()
        except BrokenPipeError:
            reply = b""
        return cast(dict[str, str], json.loads(reply)) if reply.endswith(b"\n") else {"error": self._why()}

    @property
    def alive(self) -> bool:
        return self.pid == os.getpid() and self.process.poll() is None

    def end(self) -> None:
        if self.pid == os.getpid():
            self.process.kill()
            self.process.communicate()

    def _why(self) -> str:
        return ended_by(self.process.wait(), RENDER_CPU_S, MEMORY_BYTES)


_lock = threading.Lock()
_running: list[_Process] = []
"""The process, if one is running. A fork of this process starts its own."""


def _process() -> _Process:
    if not _running or not _running[0].alive:
        _end()
        _running.append(_Process())
    return _running[0]


def _end() -> None:
    while _running:
        _running.pop().end()


atexit.register(_end)
