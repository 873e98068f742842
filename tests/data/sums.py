"""The rows of the readers' tests, all of one question, and the tiny model's chat."""

from __future__ import annotations

from tests import models
from workbench.data.chat import Chat

CHAT = Chat(models.tokenizer())
GOOD = {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}
USER, ANSWER = {"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}
