"""NeMo-Aligner's chat template, with the ratings that an answer is asked for (SteerLM).

`<extra_id_0>System\\n{system}\\n<extra_id_1>User\\n{question}\\n<extra_id_1>Assistant\\n<extra_id_2>{ratings}\\n{answer}\\n<extra_id_1>`; a user's turn may
have `attributes`, which stand before its answer. An attribute model reads `…{answer}\\n<extra_id_2>`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SYSTEM, TURN, RATINGS = "<extra_id_0>", "<extra_id_1>", "<extra_id_2>"
TEMPLATE = r"""
{%- set ns = namespace(attributes='') -%}
{%- set has_system = messages and messages[0].role == 'system' -%}
{{- '<extra_id_0>System\n' + (messages[0].content if has_system else '') + '\n<extra_id_1>' -}}
{%- for message in messages -%}
{%- if message.role == 'user' -%}
{%- set ns.attributes = message.attributes if message.attributes is defined else '' -%}
{{- 'User\n' + message.content + '\n<extra_id_1>' -}}
{%- elif message.role == 'assistant' -%}
{{- 'Assistant\n' + ('<extra_id_2>' + ns.attributes + '\n' if ns.attributes else '') -}}
{%- generation -%}{{- message.content + '\n<extra_id_1>' -}}{%- endgeneration -%}
{%- elif message.role != 'system' or not loop.first -%}
{{- raise_exception('turns of user and assistant, after at most one system turn') -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- 'Assistant\n' + ('<extra_id_2>' + ns.attributes + '\n' if ns.attributes else '') -}}
{%- endif -%}
"""


def used_by(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer with this template in place of its own. Raises ValueError: it has no such tokens."""
    known = tokenizer.get_vocab()
    if missing := [token for token in (SYSTEM, TURN, RATINGS) if token not in known]:
        raise ValueError(
            f"data.steering.layout=nemo writes {', '.join(missing)}, and the tokenizer has no such token: take layout system or user, or a model of NeMo's"
        )
    changed = copy.copy(cast(Any, tokenizer))
    changed.chat_template = TEMPLATE
    return changed


def to_be_rated(answer: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """An answer's tokens as an attribute model reads them: ended by where its ratings would stand."""
    known = tokenizer.get_vocab()
    assert answer[-1] == known[TURN]
    return [*answer[:-1], known[RATINGS]]
