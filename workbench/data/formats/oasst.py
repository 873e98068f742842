"""OpenAssistant's conversation trees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from workbench.data.formats._answers import ranked
from workbench.data.formats._parts import Asked, Parsed, role
from workbench.data.formats._values import Raw, brief, filled, number, objects, present, text, value
from workbench.data.rows import Conversation, Kind, Malformed, Message, PromptOnly, Rated, TextRow

SCHEMA = (
    '{"prompt": {"text", "role", "replies": [{"text", "role", "rank", "replies": …}]}}: every path of the tree, best-ranked replies first; each reply is '
    "learnt once; pairs are siblings, the best against the worst, or all with data.pairs=all; `labels` of a reply are its ratings, round(4 value) (OASST)"
)
GIVES: tuple[Kind, ...] = ("conversation", "preference", "rated", "unpaired", "prompt")
KEYS = (frozenset({"prompt"}),)
READS = frozenset({"prompt", "message_tree_id", "tree_state"})
LABELS = ("quality", "toxicity", "humor", "creativity")
DEPTH = 100
Turns = tuple[Message, ...]


def fits(row: Raw, asked: Asked) -> int:
    prompt = row["prompt"]
    return 5 if isinstance(prompt, dict) and "replies" in prompt and "text" in prompt else -1


def parse(row: Raw, asked: Asked) -> Parsed:
    root = value(row, "prompt")
    if not isinstance(root, dict):
        raise Malformed("prompt: the first message of a tree", brief(root))
    nodes = list(_walked(present(root), (), "prompt"))
    made: list[TextRow] = []
    if asked.kind in ("preference", "unpaired"):
        for turns, replies in nodes:
            said = [(-number(each["rank"], "rank"), text(each, "text")) for each in replies if "rank" in each]
            if turns[-1].role == "user" and len({rank for rank, _ in said}) > 1:
                made += ranked(turns, said, asked, as_rewards=False)
    elif asked.kind == "rated":
        made += [Rated(turns[:-1], turns[-1].content, turns[-1].ratings, asked.where) for turns, _ in nodes if turns[-1].ratings]
    elif asked.kind == "prompt":
        for turns, replies in nodes:
            if turns[-1].role == "user" and replies:
                made.append(PromptOnly(turns, {"answer": text(replies[0], "text")}, asked.where))
    else:
        paths = list(_paths(nodes, asked))
        made += [path for path in paths if asked.kind != "conditioned" or any(turn.ratings for turn in path.messages)]
        if len(made) < len(paths):
            asked.doubts.add("have paths without labels, which are left out")
    if not made:
        wanted = {"preference": "ranked replies", "unpaired": "ranked replies", "rated": f"labels of a reply: {', '.join(LABELS)}"}
        raise Malformed(f"a tree with {wanted.get(asked.kind, 'a reply')}", f"{len(nodes)} messages")
    return made


def _paths(nodes: list[tuple[Turns, list[Raw]]], asked: Asked) -> Iterator[Conversation]:
    """Each path up to its last reply; a reply that an earlier path has is context."""
    seen: set[tuple[str, ...]] = set()
    for path, replies in nodes:
        turns = path[:-1] if not replies and path[-1].role == "user" else path
        texts = tuple(turn.content for turn in turns)
        if replies or not turns or texts in seen:
            continue
        learnt = tuple(replace(turn, learn=turn.role != "assistant" or texts[: i + 1] not in seen) for i, turn in enumerate(turns))
        seen.update(texts[: i + 1] for i in range(len(turns)))
        yield Conversation(learnt, asked.where)


def _walked(node: Raw, before: Turns, key: str) -> Iterator[tuple[Turns, list[Raw]]]:
    """(the turns up to a message, its replies from the best-ranked on) of each message, depth first."""
    if len(before) > DEPTH:
        raise Malformed(f"a tree of at most {DEPTH} turns", "a deeper one")
    said = Message(role(text(node, "role"), f"{key}.role"), filled(text(node, "text"), f"{key}.text"))
    turns = (*before, replace(said, ratings=_labelled(node, f"{key}.labels")) if said.role == "assistant" else said)
    if turns[-1].role == (before[-1].role if before else "assistant"):
        raise Malformed(f"{key}.role: turns of user and assistant in turn, the user's first", brief(node["role"]))
    given = objects(node["replies"], f"{key}.replies") if node.get("replies") else []
    replies = sorted((each for each in given if not each.get("deleted")), key=_rank)
    yield turns, replies
    for i, each in enumerate(replies):
        yield from _walked(each, turns, f"{key}.replies[{i}]")


def _labelled(node: Raw, key: str) -> dict[str, float]:
    """The labels that SteerLM learns from, from 0 to 4 as NeMo-Aligner rounds them; those that nobody gave are missing."""
    labels = node.get("labels") or {}
    if not isinstance(labels, Mapping):
        raise Malformed(f"{key}: a mapping", brief(labels))
    ratings: dict[str, float] = {}
    for name in LABELS:
        if isinstance(given := labels.get(name), Mapping) and given.get("value") is not None:
            share = number(given["value"], f"{key}.{name}.value")
            if not 0 <= share <= 1:
                raise Malformed(f"{key}.{name}.value: from 0 to 1", brief(share))
            ratings[name] = float(round(4 * share))
    return ratings


def _rank(node: Raw) -> float:
    return number(node["rank"], "rank") if "rank" in node else float("inf")
