"""`wb.Chat`: a conversation with served checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from workbench import api
from workbench.notebook.widgets.studio import Answer, Studio


class Chat(Studio):
    """The app's Chat panel: one checkpoint, two side by side, or two whose names are hidden until a vote.

    >>> chat = wb.chat("dpo_demo", "smollm2-135m-instruct")  # doctest: +SKIP
    >>> print(chat.say("What is a map?"))  # doctest: +SKIP
    """

    kind: Literal["steer", "chat"] = "chat"

    def __init__(self, endpoint: api.Run | str) -> None:
        self.messages: list[dict[str, str]] = []
        """The conversation of the cells, which `say` continues; the panel in the browser has its own."""
        super().__init__(endpoint)

    def say(self, message: str, attributes: Mapping[str, float] | None = None, model: str | None = None, **sampling: object) -> Answer:
        """Continue the conversation. Raises ValueError as `AttributeSliders.ask` does; the conversation is then as it was."""
        turns = [*self.messages, {"role": "user", "content": message}]
        (answer,) = self.asked([self.question("say", turns, model, attributes or {}, sampling)])
        self.messages = [*turns, {"role": "assistant", "content": answer.text}]
        return answer

    def forget(self) -> None:
        """Begin a new conversation."""
        self.messages = []
