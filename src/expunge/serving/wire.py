"""What goes over the wire: requests as clients of OpenAI's interface send them, and the shapes of replies.

A reply has the same fields whoever gave the answer. Tokens are counted in what the client sent and got, never in what
was asked of a model. What a box cannot give without telling more than text (probabilities, tools) is refused.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from expunge.boxed.config import LimitsPart
from expunge.boxed.parts import Sampling
from expunge.models.chat import Message


class Fault(Exception):
    """A refusal in the form that clients expect.

    Args:
        status: of HTTP. message: for the client; nothing of what is inside the box. code: a word for programs.
        parameter: the field that is at fault.
    """

    def __init__(self, status: int, message: str, *, code: str | None = None, parameter: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.parameter = status, message, code, parameter

    def body(self) -> dict[str, Any]:
        kind = "invalid_request_error" if self.status < 500 and self.status != 429 else "server_error"
        kind = "rate_limit_error" if self.status == 429 else kind
        return {"error": {"message": self.message, "type": kind, "param": self.parameter, "code": self.code}}


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TextPiece(_Body):
    type: Literal["text"]
    text: str


def _joined(value: Any) -> Any:
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


class ChatMessage(_Body):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[TextPiece], BeforeValidator(_joined)]
    name: str | None = None
    refusal: None = None

    def as_message(self) -> Message:
        role = "system" if self.role == "developer" else self.role
        return {"role": role, "content": "\n".join(piece.text for piece in self.content)}


class StreamOptions(_Body):
    include_usage: bool = False
    include_obfuscation: bool = False


class TextFormat(_Body):
    type: Literal["text"] = "text"


Stop = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(max_length=4)]


def _listed(value: Any) -> Any:
    return () if value is None else (value,) if isinstance(value, str) else value


class ChatRequest(_Body):
    """The body of ``/v1/chat/completions``. Fields that only label a request are taken and not used."""

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    n: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=0, le=2**62)
    stop: Annotated[Stop, BeforeValidator(_listed)] = ()
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    logprobs: Literal[False] | None = None
    top_logprobs: Literal[0] | None = None
    response_format: TextFormat | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    user: str | None = None
    metadata: Any = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None

    @model_validator(mode="after")
    def _conversation(self) -> ChatRequest:
        roles = [m.as_message()["role"] for m in self.messages]
        if roles[-1] != "user":
            raise ValueError("the last message must be the user's")
        if "system" in roles[1:]:
            raise ValueError("a system message must be the first")
        return self

    def conversation(self, limits: LimitsPart) -> tuple[Message, ...]:
        """Raises: Fault: more messages or characters than are allowed."""
        found = tuple(m.as_message() for m in self.messages)
        if len(found) > limits.messages:
            raise Fault(400, f"at most {limits.messages} messages", parameter="messages")
        check_texts([m["content"] for m in found], limits, "messages")
        return found

    def sampling(self, limits: LimitsPart) -> Sampling:
        """Raises: Fault: more tokens than are allowed."""
        wanted = self.max_completion_tokens or self.max_tokens or min(limits.usual_tokens, limits.max_tokens)
        if wanted > limits.max_tokens:
            name = "max_completion_tokens" if self.max_completion_tokens else "max_tokens"
            raise Fault(400, f"at most {limits.max_tokens} tokens", parameter=name)
        return Sampling(
            max_new_tokens=wanted,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            seed=secrets.randbelow(2**31) if self.seed is None else self.seed,
        )

    def choices(self, limits: LimitsPart) -> int:
        """Raises: Fault: more than are allowed."""
        if (self.n or 1) > limits.choices:
            raise Fault(400, f"at most {limits.choices} choices", parameter="n")
        return self.n or 1


class EmbeddingsRequest(_Body):
    """The body of ``/v1/embeddings``; texts only, no tokens."""

    model: str
    input: Annotated[list[str], BeforeValidator(lambda v: [v] if isinstance(v, str) else v), Field(min_length=1)]
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = None


def check_texts(texts: Sequence[str], limits: LimitsPart, parameter: str) -> None:
    """Raises: Fault: too long together, or a text that no file could hold (half of a pair of surrogates)."""
    if sum(map(len, texts)) > limits.characters:
        raise Fault(400, f"at most {limits.characters} characters", parameter=parameter)
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError:
        raise Fault(400, "a text is not valid Unicode", parameter=parameter) from None


class Reply:
    """The replies to one request, which share id and time.

    Args:
        model: name as clients know it.
    """

    def __init__(self, model: str) -> None:
        self.model, self.id, self.created = model, f"chatcmpl-{secrets.token_hex(12)}", int(time.time())

    def whole(self, answers: Sequence[tuple[str, str]], usage: dict[str, int]) -> dict[str, Any]:
        """Args: answers: (text, finish reason)."""
        return {
            **self._head("chat.completion"),
            "choices": [
                {
                    "index": number,
                    "message": {"role": "assistant", "content": text, "refusal": None},
                    "logprobs": None,
                    "finish_reason": reason,
                }
                for number, (text, reason) in enumerate(answers)
            ],
            "usage": usage,
        }

    def piece(self, number: int, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": number, "delta": delta, "logprobs": None, "finish_reason": reason}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def last(self, usage: dict[str, int]) -> dict[str, Any]:
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def usage(prompt: int, completion: int | None = None) -> dict[str, int]:
    """Tokens; without a completion, of an embedding."""
    told = {"prompt_tokens": prompt, "total_tokens": prompt + (completion or 0)}
    return told if completion is None else {**told, "completion_tokens": completion}


def event(value: Any) -> bytes:
    """A server-sent event."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return f"data: {text}\n\n".encode()
