"""Read a chat request strictly, and say what is wrong with it in OpenAI's shape.

Limits count received bytes. Duplicate keys, numbers that are not finite and unknown fields are refused rather than
guessed at; a known field that is not supported is refused too, never silently ignored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

MAX_BODY = 1 << 20  # bytes
MAX_MESSAGES = 512
ROLES = ("system", "developer", "user", "assistant")
READ = {"model", "messages", "stream", "max_tokens", "max_completion_tokens", "temperature", "stream_options"}
HARMLESS = {"user", "metadata", "store", "seed", "top_p", "n"}  # checked below, where they could change an answer
KNOWN = {"tools", "tool_choice", "response_format", "logprobs", "top_logprobs", "stop", "logit_bias", "functions"}


class Refused(Exception):
    """A request that is not answered: HTTP status, OpenAI's error type and code, the parameter, a sentence."""

    def __init__(self, status: int, kind: str, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


@dataclass(frozen=True)
class Chat:
    """A request that can be answered."""

    messages: list[dict[str, str]]
    stream: bool
    usage: bool  # whether a stream ends with a usage chunk
    max_tokens: int | None

    @property
    def question(self) -> str:
        """The last turn, which sections are looked for."""
        return self.messages[-1]["content"]


def parse(body: bytes, model: str) -> Chat:
    """The request in these bytes. Raises Refused."""
    if len(body) > MAX_BODY:
        raise Refused(413, "invalid_request_error", "request_too_large", f"The body is over {MAX_BODY} bytes.")
    asked = _json(body)
    for name in asked:
        if name in KNOWN:
            raise _wrong("unsupported_parameter", f"'{name}' is not supported by this model.", name)
        if name not in READ | HARMLESS:
            raise _wrong("unknown_parameter", f"'{name}' is not a parameter of this endpoint.", name)
    if asked.get("model") != model:
        message = f"The model {str(asked.get('model'))[:64]!r} does not exist; there is '{model}'."
        raise Refused(404, "invalid_request_error", "model_not_found", message, "model")
    if asked.get("n", 1) != 1:
        raise _wrong("unsupported_parameter", "'n' can only be 1.", "n")
    if asked.get("temperature", 0) not in (0, 1):  # 1 is what clients send by default
        raise _wrong("unsupported_parameter", "Answers are greedy: 'temperature' can only be 0.", "temperature")
    options = asked.get("stream_options") or {}
    return Chat(
        _messages(asked.get("messages")),
        _typed(asked, "stream", bool, False),
        bool(isinstance(options, dict) and options.get("include_usage")),
        _limit(asked),
    )


def _json(body: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) != len(pairs):
            raise _wrong("duplicate_key", "A key stands twice in the body.")
        return dict(pairs)

    def finite(text: str) -> Any:
        raise _wrong("non_finite_number", f"{text} is not a number.")

    try:
        asked = json.loads(body.decode("utf-8"), object_pairs_hook=once, parse_constant=finite)
        json.dumps(asked, ensure_ascii=False).encode("utf-8")  # a lone surrogate is text in JSON, and nowhere else
    except (ValueError, RecursionError):
        raise _wrong("invalid_json", "The body is not JSON in UTF-8.") from None
    if not isinstance(asked, dict):
        raise _wrong("invalid_json", "The body is not a JSON object.")
    return asked


def _messages(found: Any) -> list[dict[str, str]]:
    if not isinstance(found, list) or not found or len(found) > MAX_MESSAGES:
        raise _wrong("invalid_value", f"'messages' is a list of 1 to {MAX_MESSAGES} turns.", "messages")
    turns = []
    for number, turn in enumerate(found):
        where = f"messages[{number}]"
        if not isinstance(turn, dict) or turn.get("role") not in ROLES:
            raise _wrong("invalid_value", f"'{where}' has a role: {', '.join(ROLES)}.", where)
        turns.append(
            {"role": turn["role"].replace("developer", "system"), "content": _text(turn.get("content"), where)}
        )
    if turns[-1]["role"] != "user":
        raise _wrong("invalid_value", "The last of 'messages' is the user's.", "messages")
    return turns


def _text(content: Any, where: str) -> str:
    """Content as text: a string, or a list of text parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [None]
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    if len(texts) != len(parts) or not all(isinstance(text, str) for text in texts):
        raise _wrong("invalid_value", f"'{where}.content' is text, or a list of text parts.", where)
    return "\n".join(map(str, texts))


def _limit(asked: dict[str, Any]) -> int | None:
    name = "max_completion_tokens" if "max_completion_tokens" in asked else "max_tokens"
    found = asked.get(name)
    if found is None:
        return None
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise _wrong("invalid_value", f"'{name}' is a whole number from 1.", name)
    return found


def _typed(asked: dict[str, Any], name: str, kind: type, default: Any) -> Any:
    found = asked.get(name, default)
    if not isinstance(found, kind):
        raise _wrong("invalid_value", f"'{name}' is {kind.__name__}.", name)
    return found


def _wrong(code: str, message: str, param: str | None = None) -> Refused:
    return Refused(400, "invalid_request_error", code, message, param)
