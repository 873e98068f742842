"""Rows of every format with their right values, and how tests write and show them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from workbench.data.readers import Kind
from workbench.data.rows import Conversation, Preference, PromptOnly, Rated, RawText, TextRow, Unpaired

Row = dict[str, Any]


def write(folder: Path, *rows: Any, name: str = "rows.jsonl") -> str:
    path = folder / name
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def said(row: TextRow) -> list[str]:
    """A row in short: S, U, A or T and the text of each turn, [A] where it is not learnt; then the answers."""
    if isinstance(row, RawText):
        return [row.text]
    turns = row.messages if isinstance(row, Conversation) else row.prompt
    marks = [f"[{turn.role[0].upper()}]" if turn.role == "assistant" and not turn.learn else turn.role[0].upper() for turn in turns]
    answers = [] if isinstance(row, Conversation) else list(row.answers)
    return [f"{mark} {turn.content}" for mark, turn in zip(marks, turns, strict=True)] + answers


def turn(role: str, content: Any, **more: Any) -> Row:
    return {"role": role, "content": content, **more}


USER, ANSWER, OTHER = turn("user", "p"), turn("assistant", "a"), turn("assistant", "b")
TREE = {"text": "hi", "role": "prompter", "replies": []}


def reply(text: str, *replies: Row, role: str = "assistant", **more: Any) -> Row:
    return {"text": text, "role": role, "replies": list(replies), **more}


READ: dict[str, tuple[Kind, str, Row, list[str]]] = {
    "s01 Alpaca's input": (
        "conversation",
        "alpaca",
        {"instruction": "Translate", "input": "Good", "output": "Bon"},
        ["U Translate\n\nGood", "A Bon"],
    ),
    "Alpaca without input": ("conversation", "alpaca", {"instruction": "i", "input": "", "output": "o"}, ["U i", "A o"]),
    "s02 Alpaca's history": (
        "conversation",
        "alpaca",
        {"system": "S", "instruction": "I", "input": "N", "output": "O", "history": [["h1", "h2"]]},
        ["S S", "U h1", "A h2", "U I\n\nN", "A O"],
    ),
    "Alpaca with its text": ("conversation", "alpaca", {"instruction": "i", "output": "o", "text": "x", "prompt": "y"}, ["U i", "A o"]),
    "s03 weight": (
        "conversation",
        "messages",
        {"messages": [turn("user", "a"), turn("assistant", "BAD", weight=0), turn("user", "b"), turn("assistant", "good", weight=1)]},
        ["U a", "[A] BAD", "U b", "A good"],
    ),
    "train: false": (
        "conversation",
        "messages",
        {"messages": [USER, turn("assistant", "x", train=False), turn("user", "b"), turn("assistant", "y", train=True)]},
        ["U p", "[A] x", "U b", "A y"],
    ),
    "s04 system": ("preference", "preference", {"system": "S", "prompt": "p", "chosen": "a", "rejected": "b"}, ["S S", "U p", "a", "b"]),
    "s05 Orca's pairs": ("preference", "preference", {"system": "S", "question": "p", "chosen": "a", "rejected": "b"}, ["S S", "U p", "a", "b"]),
    "Orca's answers": ("conversation", "prompt_completion", {"system_prompt": "S", "question": "p", "response": "a"}, ["S S", "U p", "A a"]),
    "05 rewards": (
        "preference",
        "preference",
        {"prompt": "p", "chosen": "a", "rejected": "b", "chosen_reward": 4.0, "rejected_reward": 1.0},
        ["U p", "a", "b", "4.0", "1.0"],
    ),
    "06 empty system": ("conversation", "messages", {"messages": [turn("system", ""), USER, ANSWER]}, ["U p", "A a"]),
    "07 one pair": ("preference", "preference", {"prompt": "p", "chosen": "a", "rejected": "b"}, ["U p", "a", "b"]),
    "s09 completion": ("conversation", "prompt_completion", {"prompt": "sky is", "completion": " blue"}, ["U sky is", "A  blue"]),
    "prompt and response": ("conversation", "prompt_completion", {"prompt": [USER], "response": [ANSWER]}, ["U p", "A a"]),
    "s11 Dolly": ("conversation", "dolly", {"instruction": "i", "context": "c", "response": "r", "category": "qa"}, ["U i\n\nc", "A r"]),
    "s12 GSM8K": ("conversation", "question_answer", {"question": "1+1", "answer": "2"}, ["U 1+1", "A 2"]),
    "s13 label 1": ("unpaired", "unpaired", {"prompt": "p", "completion": "a", "label": 1}, ["U p", "a", "wanted"]),
    "s13 label 0": ("unpaired", "unpaired", {"prompt": "p", "completion": "a", "label": 0}, ["U p", "a", "unwanted"]),
    "s16 Nectar": (
        "preference",
        "nectar",
        {
            "prompt": "\n\nHuman: hi \n\nAssistant: ",
            "answers": [{"answer": x, "rank": r} for x, r in (("y", 2.0), ("x", 1.0), ("z", 7.0))],
            "turns": 1,
        },
        ["U hi", "x", "z"],
    ),
    "s18 SafeRLHF": (
        "preference",
        "saferlhf",
        {"prompt": "p", "response_0": "a", "response_1": "b", "better_response_id": 1, "safer_response_id": 0},
        ["U p", "b", "a"],
    ),
    "s20 UltraFeedback": (
        "preference",
        "preference",
        {
            "prompt": "p",
            "prompt_id": "x",
            "chosen": [USER, ANSWER],
            "rejected": [USER, OTHER],
            "messages": [USER, ANSWER],
            "score_chosen": 8.0,
            "score_rejected": 2.0,
        },
        ["U p", "a", "b", "8.0", "2.0"],
    ),
    "s21 a system turn in the answers": (
        "preference",
        "preference",
        {"prompt": "p", "chosen": [turn("system", "s"), USER, ANSWER], "rejected": [turn("system", "s"), USER, OTHER]},
        ["S s", "U p", "a", "b"],
    ),
    "several turns in the answers": (
        "preference",
        "preference",
        {"prompt": "p", "chosen": [USER, ANSWER, turn("user", "q"), OTHER], "rejected": [USER, ANSWER, turn("user", "q"), ANSWER]},
        ["U p", "A a", "U q", "b", "a"],
    ),
    "UltraFeedback's completions": (
        "preference",
        "completions",
        {"instruction": "p", "completions": [{"response": x, "overall_score": r} for x, r in (("b", 2.0), ("a", 8.5), ("c", 5.0))]},
        ["U p", "a", "b", "8.5", "2.0"],
    ),
    "s23 implicit": ("preference", "implicit", {"chosen": "The sky is blue", "rejected": "The sky is black"}, ["U The sky is", "blue", "black"]),
    "s24 parts": (
        "conversation",
        "messages",
        {"messages": [turn("user", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), OTHER]},
        ["U ab", "A b"],
    ),
    "s25 opening answer": (
        "conversation",
        "sharegpt",
        {"conversations": [{"from": "gpt", "value": "hello"}, {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        ["[A] hello", "U a", "A b"],
    ),
    "s27 chatgpt": (
        "conversation",
        "sharegpt",
        {"conversations": [{"from": "human", "value": "a"}, {"from": "chatgpt", "value": "b"}]},
        ["U a", "A b"],
    ),
    "ShareGPT in OpenAI's words": ("conversation", "sharegpt", {"conversations": [USER, ANSWER]}, ["U p", "A a"]),
    "s30 Argilla": ("preference", "nemo", {"instruction": "p", "chosen_response": "a", "rejected_response": "b"}, ["U p", "a", "b"]),
    "s32 LLaMA-Factory": (
        "preference",
        "preference",
        {"instruction": "i", "input": "in", "chosen": "a", "rejected": "b", "system": "s"},
        ["S s", "U i\n\nin", "a", "b"],
    ),
    "s35 raw text": ("conversation", "text", {"text": "raw text"}, ["raw text"]),
    "s36 RLVR": ("prompt", "messages", {"messages": [USER], "ground_truth": "2", "dataset": "g"}, ["U p", "answer=2", "dataset=g", "ground_truth=2"]),
    "s37 verl": (
        "prompt",
        "verl",
        {"data_source": "d", "prompt": [USER], "ability": "math", "reward_model": {"style": "rule", "ground_truth": "2"}, "extra_info": {}},
        [
            "U p",
            "ability=math",
            "answer=2",
            "data_source=d",
            "extra_info={}",
            "ground_truth=2",
            'reward_model={"style": "rule", "ground_truth": "2"}',
        ],
    ),
    "s38 tree": ("conversation", "oasst", {"message_tree_id": "x", "prompt": {**TREE, "replies": [reply("yo")]}}, ["U hi", "A yo"]),
    "SteerLM's label": (
        "rated",
        "sharegpt",
        {"conversations": [{"from": "User", "value": "p"}, {"from": "Assistant", "value": "a", "label": "quality:3"}]},
        ["U p", "a", "quality=3.0"],
    ),
    "a number that is no rating": ("rated", "rated", {"id": 7, "prompt": "p", "response": "a", "helpfulness": 3}, ["U p", "a", "helpfulness=3.0"]),
    "a null column": ("preference", "preference", {"prompt": None, "chosen": [USER, ANSWER], "rejected": [USER, OTHER]}, ["U p", "a", "b"]),
    "a prompt of transcripts": (
        "preference",
        "preference",
        {"prompt": "\n\nHuman: p\n\nAssistant: x\n\nHuman: q\n\nAssistant:", "chosen": "a", "rejected": "b"},
        ["U p", "A x", "U q", "a", "b"],
    ),
}


def full(row: TextRow) -> list[str]:
    """As `said`, with what else the row has."""
    rest: list[str] = []
    if isinstance(row, Preference):
        rest = [str(reward) for reward in (row.chosen_reward, row.rejected_reward) if reward is not None]
    elif isinstance(row, Unpaired):
        rest = ["wanted" if row.desirable else "unwanted"]
    elif isinstance(row, Rated):
        rest = [f"{name}={value}" for name, value in row.attributes.items()]
    elif isinstance(row, PromptOnly):
        rest = sorted(f"{name}={value}" for name, value in row.columns.items())
    return said(row) + rest
