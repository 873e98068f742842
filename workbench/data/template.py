"""What a chat template makes of a conversation, and where in its text each turn stands.

A conversation is rendered whole, as it is, and once more with marks around its texts: characters of a private plane that no text has. Where both
renderings are the same but for the marks, the marks say where the template put each text, also if it trims or drops a part of it. The prompt is what
the rendering has in common with the one that ends with the template's generation prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from workbench.data import templating
from workbench.data.marks import FIRST_MARK, Span, Turn, extras, marked, unmarked
from workbench.data.rows import Malformed, Message, Tools
from workbench.data.template_process import Rendering
from workbench.data.templating import Refused
from workbench.data.tokenizer import added_vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEPTHS = (0, 32)
"""How many characters inside a text its marks stand: within, where a template looks at how the text begins or ends."""
REASONING = ("reasoning_content", "thinking", "reasoning")
"""By what names templates know what an assistant thought before it answered."""
PROBE = (Message("user", "Hello"), Message("assistant", "Yes"))
TOOL = {"type": "function", "function": {"name": "probe_tool", "description": "A tool", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "call_0", "type": "function", "function": {"name": "probe_tool", "arguments": {}}}
WAY_OUT = "put a chat_template.jinja that does beside the model"


@dataclass(frozen=True)
class Ask:
    """A conversation whose last turn is the assistant's, to be laid out."""

    messages: Sequence[Message]
    tools: Tools = ()


@dataclass(frozen=True)
class Layout:
    """A conversation as the template's text, and where its turns stand in it, in characters.

    `prompt` is where the prompt ends and the last answer begins. `contents` are the messages' own texts: None for one that is empty, or whose
    beginning the template left out. `learnt` are the parts to learn from, by message; `end` is where the last turn ends, or the last part to learn.
    """

    text: str
    prompt: int
    contents: Sequence[Span | None]
    learnt: Mapping[int, Sequence[Span]]
    end: int


class Template:
    """A tokenizer's chat template, with the variables of a run.

    `ending` is what it puts after an answer, up to and with its first special token; empty where it puts none. `notes` say what is peculiar about it.
    `ended_otherwise` counts earlier assistant's turns to learn from that it ends with something else: of those only the text is learnt.
    `opened_otherwise` counts last turns, such as ones with thoughts where the prompt says that there are none, whose prompt ends sooner for it.

    Raises:
        ValueError: there is no template, or it does not take a question with an answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, variables: Mapping[str, object] | None = None):
        if not tokenizer.chat_template:
            raise ValueError("the tokenizer has no chat template; put a chat_template.jinja beside the model (an instruct model has one)")
        self._tokenizer, self._variables = tokenizer, dict(variables or {})
        self._names = {name: value if isinstance(value, list) else str(value) for name, value in tokenizer.special_tokens_map.items()}
        if own := sorted({*self._variables} & {*self._names}):
            raise ValueError(f"data.template_kwargs sets {', '.join(own)}, which the tokenizer gives its chat template: leave it out")
        self._of = tokenizer.name_or_path or "the tokenizer"
        self._taken: dict[str, str] = {}
        self.takes_parts = self._wants_parts()
        self.source = tokenizer.get_chat_template()
        self.has_blocks = re.search(r"\{%[-+]?\s*generation\b", self.source) is not None
        self.ending = self._opening = self._after_question = self._first_ending = self._call_ending = ""
        self.thoughts_left_out = 0
        self.ended_otherwise = self.opened_otherwise = 0
        self._cut: str | None = None
        self._learn_its_ways()

    def lay_out(self, asks: Sequence[Ask]) -> list[Layout | Malformed]:
        """Each conversation's layout, or why the template does not take it."""
        results: list[Layout | Malformed] = [Malformed()] * len(asks)
        left = list(range(len(asks)))
        for depth in DEPTHS:
            for i, result in zip(left, self._lay_out([asks[i] for i in left], depth), strict=True):
                results[i] = result
            left = [i for i in left if isinstance(results[i], _Rewritten)]
        return results

    def _lay_out(self, asks: Sequence[Ask], depth: int) -> list[Layout | Malformed]:
        refused = [self._refusal(ask) for ask in asks]
        renderings: list[Rendering] = []
        for ask, refusal in zip(asks, refused, strict=True):
            if refusal is None:
                renderings += [
                    self._rendering(ask.messages, ask.tools),
                    self._rendering(marked(ask.messages, depth), ask.tools, mark_blocks=True),
                    self._rendering(ask.messages[:-1], ask.tools, generation=True),
                ]
        texts = iter(self._render(renderings))
        return [refusal or self._layout(ask, [next(texts) for _ in range(3)], depth) for ask, refusal in zip(asks, refused, strict=True)]

    def _layout(self, ask: Ask, texts: Sequence[str | Refused], depth: int) -> Layout | Malformed:
        for text in texts:
            if isinstance(text, Refused):
                return Malformed("a conversation that the model's chat template takes", f"that the template refuses it: {text}")
        whole, with_marks, asked = map(str, texts)
        plain, marks, blocks = unmarked(with_marks)
        if plain != whole:
            return _Rewritten(f"texts that the chat template leaves as they are, or trims; {WAY_OUT}", "one that it rewrites")
        turns = [Turn.at(message, marks.get(2 * k), marks.get(2 * k + 1), depth, whole) for k, message in enumerate(ask.messages)]
        try:
            self._check_extras(ask.messages, marks)
            return _after_given(self._placed(turns, whole, asked, blocks), ask.messages)
        except Malformed as error:
            return error

    def _check_extras(self, messages: Sequence[Message], marks: Mapping[int, int]) -> None:
        """That no tool call is left out, nor what the last turn thought."""
        for k, what, mark in extras(messages):
            if mark in marks:
                continue
            if what == "reasoning_content" and k < len(messages) - 1:
                self.thoughts_left_out += 1
            else:
                raise Malformed(f"a conversation of which the chat template keeps the {what}; {WAY_OUT}", f"a turn whose {what} it leaves out")

    def _placed(self, turns: Sequence[Turn], whole: str, asked: str, blocks: Sequence[Span]) -> Layout:
        for turn in turns:
            if turn.message.content.strip() and turn.end is None:
                raise Malformed(
                    f"a conversation of which the chat template keeps every turn; {WAY_OUT}", f"one whose {turn.message.role} turn it leaves out"
                )
        prompt = _common(whole, asked)
        before = max((turn.end or 0 for turn in turns[:-1]), default=0)
        if prompt < before:
            raise Malformed(
                "a beginning that the chat template writes alike with and without the last answer", f"one that differs at {whole[prompt:][:40]!r}"
            )
        self.opened_otherwise += self._cut is not None and asked[prompt:] != self._cut
        learnt: dict[int, Sequence[Span]] = {}
        end = prompt
        for k, turn in enumerate(turns):
            if turn.message.role != "assistant":
                continue
            last = k == len(turns) - 1
            previous = turns[k - 1] if k else None
            start = prompt if last else self._start(whole, turn, previous)
            limit = next((following.start for following in turns[k + 1 :] if following.start is not None), len(whole))
            calls = bool(turn.message.extra.get("tool_calls"))
            close = self._close(whole, turn, start, limit)
            if close is None and calls and last:
                close = len(whole.rstrip())  # all of it is the last turn's
            if close is None and (calls or (last and self.ending)):
                raise Malformed(
                    f"an assistant turn whose end in the chat template's text is known{self.ending and f', as {self.ending!r} is'}",
                    f"one that it continues with {whole[turn.end or start :][:40]!r}",
                )
            until = close or max(turn.end or start, start)
            end = until if last else end
            if turn.message.learn:
                self.ended_otherwise += close is None and bool(self.ending)
                after = (previous.end or 0) if previous else 0
                learnt[k] = [(a, b) for a, b in blocks if after <= a and b <= limit] if self.has_blocks else [(start, until)]
        ends = [b for spans in learnt.values() for _, b in spans]
        return Layout(whole, prompt, [turn.span for turn in turns], learnt, max([end, *ends] if len(turns) - 1 in learnt else ends, default=end))

    def _start(self, whole: str, turn: Turn, previous: Turn | None) -> int:
        """Where an earlier assistant's turn begins."""
        after = (previous.end or 0) if previous else 0
        latest = len(whole) if turn.start is None else turn.start
        if self._opening:
            opening = whole.find(self._opening, after)
            if 0 <= opening <= latest - len(self._opening):
                return opening + len(self._opening)
        elif previous and previous.message.role == "user" and whole.startswith(self._after_question, after):
            return min(latest, after + len(self._after_question))
        if self.has_blocks:
            return after
        if turn.start is None:
            raise Malformed("assistant turns whose beginning in the chat template's text is known", f"{turn.message.content[:40]!r}")
        return turn.start

    def _close(self, whole: str, turn: Turn, start: int, limit: int) -> int | None:
        """Where the turn ends, with what ends it; None where the template ends it otherwise than an answer, or not at all."""
        if not self.ending:
            return None
        for ending in (self.ending, self._first_ending):
            for end in (turn.end, turn.core_end):
                if end is not None and whole.startswith(ending, end):
                    return end + len(ending)
        if turn.message.extra.get("tool_calls") or turn.end is None:
            ends = [
                (at, ending) for ending in {self.ending, self._call_ending} if (at := whole.find(ending, max(turn.end or start, start), limit)) >= 0
            ]
            return min(ends)[0] + len(min(ends)[1]) if ends else None
        return None

    def _refusal(self, ask: Ask) -> Malformed | None:
        """Why these messages are not given to the template: it would leave out a part of them without a word."""
        for message in ask.messages:
            if max(message.content, default="") >= chr(FIRST_MARK):
                return Malformed("text without characters of Unicode's plane 16", "private characters above U+100000")
        wanted = {"tools"} if ask.tools else set()
        wanted |= {key for message in ask.messages for key in ("reasoning_content", "tool_calls") if message.extra.get(key)}
        wanted |= {"tool turns" for message in ask.messages if message.role == "tool"}
        for what in sorted(wanted):
            if reason := self._why_not(what):
                return Malformed(f"a conversation without {what}, which the model's chat template does not take; {WAY_OUT}", reason)
        return None

    def _why_not(self, what: str) -> str:
        """Why the template does not take it; empty where it does."""
        if what not in self._taken:
            self._taken[what] = self._probed(what)
        return self._taken[what]

    def _probed(self, what: str) -> str:
        user, answer = PROBE
        if what == "reasoning_content":
            for name in REASONING:
                self._reasoning = name
                (text,) = self._render([self._rendering((user, Message("assistant", "Yes", extra={what: "probe thought"})))])
                if "probe thought" in str(text):
                    return ""
            return "it leaves out what an assistant thought"
        tools = (TOOL,)
        called = Message("assistant", "", extra={"tool_calls": [CALL]})
        result = Message("tool", "probe result", extra={"tool_call_id": "call_0", "name": "probe_tool"})
        turns = (user, answer) if what == "tools" else (user, called, result, answer)
        with_tools, without, call = self._render([self._rendering(turns, tools), self._rendering(turns), self._rendering((user, called))])
        if isinstance(call, str):
            self._call_ending = next((each for each in self._closers() if call.rstrip().endswith(each)), self.ending)
        for text in (with_tools, without):
            if isinstance(text, Refused):
                return str(text)
        wanted = {"tools": "probe_tool", "tool_calls": "probe_tool", "tool turns": "probe result"}[what]
        return "" if wanted in str(with_tools if what == "tools" else without) else f"it leaves out {what}"

    def _wants_parts(self) -> bool:
        """Whether it takes a message's content as a list of parts alone."""
        refused = []
        for parts in (False, True):
            self.takes_parts = parts
            (text,) = self._render([self._rendering(PROBE)])
            if isinstance(text, Refused):
                refused.append(str(text))
            elif all(message.content in text for message in PROBE):
                return parts
        if len(refused) == 2:
            raise ValueError(f"the chat template of {self._of} is refused: {refused[0]}; put a chat_template.jinja without that beside the model")
        return False

    def _learn_its_ways(self) -> None:
        self.notes: list[str] = []
        question, _ = PROBE
        (layout,) = self.lay_out([Ask(PROBE)])
        if isinstance(layout, Malformed):
            raise ValueError(f"the chat template cannot be used: expected {layout.args[0]}; found {layout.args[1]}")
        renderings = [self._rendering([question], generation=True), self._rendering([question]), self._rendering([*PROBE, *PROBE])]
        asked, bare, longer = map(str, self._render(renderings))
        self._opening = longer[_common(asked, bare) : _common(longer, asked)]
        content = layout.contents[1]
        assert content is not None
        after = layout.text[content[1] :]
        self._first_ending = self.ending = self._run_of_tokens(after, once=True)
        self.ending += self._run_of_tokens(after[len(self.ending) :], adjoining=True)
        user = layout.contents[0]
        assert user is not None
        self._after_question = asked[user[1] : layout.prompt]
        added = layout.text[layout.prompt : content[0]].strip()
        switch = " (data.template_kwargs={enable_thinking: false} puts it into the prompt)" if "enable_thinking" in self.source else ""
        self._cut = asked[layout.prompt :]
        if self._cut:
            self.notes.append(
                f"the chat template's generation prompt ends with {self._cut!r}, which it does not put before an answer: prompts end before that, in training,"
                f" validation and sampling alike; {WAY_OUT}"
            )
        if added:
            self.notes.append(
                f"before an answer the chat template puts {added!r}, which its generation prompt lacks: the model learns to write it{switch}"
            )
        if not self.ending:
            self.notes.append("the chat template puts no token after an answer: the tokenizer's end of sequence is learnt there, and stops sampling")
        elif self.has_blocks and not any(b >= content[1] + len(self.ending) for _, b in self._blocks_of_probe()):
            self.notes.append(
                f"the chat template's generation blocks leave out {self.ending!r}, which ends an answer: the model does not learn to end"
            )
        if "strftime_now" in self.source and not {"date_string", "current_date"} & {*self._variables}:
            self.notes.append("the chat template may write today's date into conversations: rows differ from day to day")

    def _run_of_tokens(self, text: str, once: bool = False, adjoining: bool = False) -> str:
        """Special tokens that a text begins with: one after white space, or those that adjoin."""
        end = 0 if adjoining else len(text) - len(text.lstrip())
        closers = self._closers()
        while token := next((each for each in closers if text.startswith(each, end)), None):
            end += len(token)
            if once:
                return text[:end]
        return text[:end] if adjoining else ""

    def _blocks_of_probe(self) -> Sequence[Span]:
        (text,) = self._render([self._rendering(PROBE, mark_blocks=True)])
        return unmarked(str(text))[2]

    def _closers(self) -> list[str]:
        added = [str(token) for token in added_vocabulary(self._tokenizer)]
        return sorted({*added, str(self._tokenizer.eos_token)}, key=len, reverse=True)

    _reasoning = REASONING[0]

    def _rendering(self, messages: Sequence[Message], tools: Tools = (), generation: bool = False, mark_blocks: bool = False) -> Rendering:
        return {
            "messages": [self._for_template(message) for message in messages],
            "add_generation_prompt": generation,
            "tools": list(tools) or None,
            "variables": self._variables,
            "mark_generation": mark_blocks,
        }

    def _for_template(self, message: Message) -> dict[str, object]:
        content = [{"type": "text", "text": message.content}] if self.takes_parts else message.content
        extra = {self._reasoning if key == "reasoning_content" else key: value for key, value in message.extra.items() if value}
        if isinstance(calls := extra.get("tool_calls"), list):
            extra["tool_calls"] = [_with_read_arguments(call) for call in calls]
        return {"role": message.role, "content": content, **extra}

    def _render(self, renderings: Sequence[Rendering]) -> list[str | Refused]:
        """Of several named templates, the one for tools is taken where a conversation has some."""
        texts: dict[int, str | Refused] = {}
        for has_tools in (False, True):
            numbers = [i for i, rendering in enumerate(renderings) if bool(rendering["tools"]) == has_tools]
            if numbers:
                source = self._tokenizer.get_chat_template(tools=[TOOL] if has_tools else None)
                texts.update(zip(numbers, templating.render(source, [renderings[i] for i in numbers], self._names, self._of), strict=True))
        return [texts[i] for i in range(len(renderings))]


def _after_given(layout: Layout, messages: Sequence[Message]) -> Layout:
    """The layout with what answers are given to begin with in the prompt, and not learnt."""
    prompt, learnt = layout.prompt, dict(layout.learnt)
    for k, message in enumerate(messages):
        if message.role != "assistant" or not message.given:
            continue
        span = layout.contents[k]
        if span is None or not layout.text.startswith(message.given, span[0]):
            raise Malformed(f"an answer whose beginning the chat template keeps; {WAY_OUT}", f"one whose {message.given!r} it leaves out or changes")
        begin = span[0] + len(message.given)
        prompt = begin if k == len(messages) - 1 else prompt
        learnt |= {k: [(max(a, begin), b) for a, b in learnt[k] if b > begin]} if k in learnt else {}
    return replace(layout, prompt=prompt, learnt=learnt)


class _Rewritten(Malformed):
    """The template made something else of the marked texts."""


def _common(a: str, b: str) -> int:
    """How many characters both begin with."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
    return low


def _with_read_arguments(call: object) -> object:
    """A tool call whose arguments are an object, as templates expect them, not its JSON."""
    if not isinstance(call, Mapping) or not isinstance(function := call.get("function"), Mapping):
        return call
    arguments = function.get("arguments")
    try:
        read = json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        return call
    return {**call, "function": {**function, "arguments": read}} if isinstance(read, Mapping) else call
