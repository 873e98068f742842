"""What may be asked of a policy endpoint, by OpenAI's names. What it does not do is refused by name; a field that it does not know is too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workbench.settings.naming import nearest

MOST_STOPS, MOST_TOP, MOST_SAMPLES = 16, 20, 128
COMPLETION_TOKENS = 16
"""OpenAI's default of `max_tokens` for completions; an answer of a chat has what the context leaves."""
NEUTRAL: Mapping[str, Sequence[object]] = {
    "best_of": (1, None),
    "frequency_penalty": (0, None),
    "presence_penalty": (0, None),
    "logit_bias": ({}, None),
    "suffix": (None,),
    "tools": ([], None),
    "tool_choice": ("none", None),
    "response_format": ({"type": "text"}, None),
    "store": (False, None),
    "modalities": (["text"], None),
}
"""Fields that ask for nothing where they have one of these values."""


class HttpError(Exception):
    """A request that is not answered: the HTTP status, the message, and which field is at fault. Its body is OpenAI's error object."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None):
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    @property
    def body(self) -> dict[str, Any]:
        kind = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}.get(self.status)
        kind = kind or ("invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Part(_Strict):
    """A text as one of a message's parts."""

    type: Literal["text"]
    text: str


class Message(_Strict):
    """One turn."""

    role: Literal["system", "user", "assistant"]
    content: str | list[Part]

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(_Strict):
    """`include_usage`: a last chunk counts the tokens."""

    include_usage: bool = False


Token = Annotated[int, Field(ge=0)]


class _Request(_Strict):
    model: str
    max_tokens: int | None = Field(default=None, ge=0)
    temperature: float | None = Field(default=None, ge=0, le=10)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0)
    n: int | None = Field(default=None, ge=1, le=MOST_SAMPLES)
    stop: str | list[str] | None = None
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**64)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """Raises HttpError for too many, or an empty one."""
        stops = () if self.stop is None else (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        if len(stops) > MOST_STOPS or "" in stops:
            raise HttpError(400, f"stop: at most {MOST_STOPS} texts, none of them empty", "stop")
        return stops


class ChatRequest(_Request):
    """`POST /v1/chat/completions`."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=0)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MOST_TOP)
    attributes: dict[str, float] | None = None

    @property
    def top(self) -> int | None:
        """Of how many likeliest tokens log-probabilities are wanted; None: of none at all. Raises HttpError."""
        if self.top_logprobs and not self.logprobs:
            raise HttpError(400, "top_logprobs needs logprobs=true", "top_logprobs")
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionRequest(_Request):
    """`POST /v1/completions`."""

    prompt: str | list[str] | list[Token] | list[list[Token]]
    logprobs: int | None = Field(default=None, ge=0, le=MOST_TOP)
    echo: bool | None = None

    @property
    def prompts(self) -> Sequence[str | Sequence[int]]:
        """One or several. Raises HttpError for none."""
        match self.prompt:
            case "" | []:
                raise HttpError(400, "prompt is empty: the model continues a text of one token at least", "prompt")
            case str() as text:
                return [text]
            case [int(), *_] as tokens:
                return [[token for token in tokens if isinstance(token, int)]]
            case several:
                return [each for each in several if not isinstance(each, int)]


class MeasureRequest(_Strict):
    """`POST /v1/attributes`: the answer is the last message."""

    messages: list[Message] = Field(min_length=2)


R = TypeVar("R", bound=BaseModel)


def parsed(kind: type[R], body: object) -> R:
    """Raises HttpError (400) with the field and what is wrong with it."""
    if not isinstance(body, dict):
        raise HttpError(400, f"expected a JSON object, got {type(body).__name__}")
    given = {name: value for name, value in body.items() if not (name in NEUTRAL and any(value == each for each in NEUTRAL[name]))}
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise _explained(kind, max(error.errors(), key=lambda each: len(each["loc"]))) from None


def _explained(kind: type[BaseModel], error: Any) -> HttpError:
    last = len(error["loc"]) - 1  # on the way are also the names of a union's types
    path = [
        str(part)
        for i, part in enumerate(error["loc"])
        if isinstance(part, int) or part in _FIELDS or (i == last and part not in ("str", "int") and "[" not in part)
    ]
    name = path[0] if path else ""
    if error["type"] == "extra_forbidden" and len(path) == 1:
        known = list(kind.model_fields)
        also = f"; only as {' or '.join(map(repr, NEUTRAL[name]))}" if name in NEUTRAL else nearest(name, known)
        return HttpError(400, f"{name} is not supported{also}; supported are: {', '.join(known)}", name, "unsupported_parameter")
    where = ".".join(path)
    if error["type"] == "extra_forbidden":
        return HttpError(400, f"{where} is not supported", where, "unsupported_parameter")
    return HttpError(400, f"{where or 'the request'}: {error['msg'][:1].lower()}{error['msg'][1:]}", where or None)


_FIELDS = {name for kind in (ChatRequest, CompletionRequest, MeasureRequest, Message, Part, StreamOptions) for name in kind.model_fields}
