"""Every attribute that a span of ours may hold: its name, and the form that its value must have.

There is none for a prompt, an answer, a secret, an address or free text. The names of gen_ai.* stand here and nowhere
else, since none of them is stable.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# the names of gen_ai.* are those of the GenAI conventions' repository (open-telemetry/semantic-conventions-genai) at
# this schema
SCHEMA_URL = "https://opentelemetry.io/schemas/gen-ai/1.42.0"
SCOPE, VERSION = "nightshift", "1"  # VERSION: of nightshift.* below; raised when one changes its meaning
ROUTES = ("chat", "completions", "embeddings", "feedback")  # that are kept; the others have an id and no more


@dataclass(frozen=True)
class Form:
    """An attribute's name, and what its value looks like."""

    name: str
    holds: Callable[[Any], bool]


def _text(pattern: str) -> Callable[[Any], bool]:
    compiled = re.compile(pattern)
    return lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None


def _all(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list | tuple) and len(value) <= 64 and all(holds(one) for one in value)


def _counts(pattern: str) -> Callable[[Any], bool]:
    kind = _text(pattern)
    return lambda value: isinstance(value, Mapping) and all(kind(k) and _number(n) for k, n in value.items())


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _bool(value: Any) -> bool:
    return isinstance(value, bool)


_MASKED = _counts("EMAIL|PHONE|IP|IBAN|CARD|SECRET")  # what mask.py finds
_DIGEST, _SHORT, _COMMIT = _text("[0-9a-f]{64}"), _text("[0-9a-f]{16}"), _text("[0-9a-f]{40}")
_MODEL = _text(r"nightshift(-[a-z]+)?")  # the name that clients ask for, never the engine's
FINISHED = ("stop", "length", "content_filter", "tool_calls")
# the word that `set` takes → the attribute; a Mapping becomes one attribute a key (`nightshift.masked.in.EMAIL`)
ATTRIBUTES: dict[str, Form] = {
    # gen_ai.*
    "operation": Form("gen_ai.operation.name", _text("chat|text_completion|embeddings|retrieval")),
    "provider": Form("gen_ai.provider.name", _text("nightshift")),
    "model": Form("gen_ai.request.model", _MODEL),
    "max_tokens": Form("gen_ai.request.max_tokens", _number),
    "temperature": Form("gen_ai.request.temperature", _number),
    "top_p": Form("gen_ai.request.top_p", _number),
    "input_tokens": Form("gen_ai.usage.input_tokens", _number),
    "output_tokens": Form("gen_ai.usage.output_tokens", _number),
    "finish": Form("gen_ai.response.finish_reasons", _all(_text("|".join(FINISHED)))),
    "first_token_s": Form("gen_ai.response.time_to_first_chunk", _number),
    # of others
    "status": Form("http.response.status_code", _number),
    "error": Form("error.type", _text("[a-z]+(_[a-z]+)+|conflict|draining|([A-Z][a-z]+)+|[A-Z][A-Za-z]*Error")),
    "user": Form("user.id", _SHORT),
    "session": Form("session.id", _SHORT),
    # nightshift.*
    "route": Form("nightshift.route", _text("|".join(ROUTES))),
    "side": Form("nightshift.side", _text("stable|canary")),
    "release": Form("nightshift.release.digest", _DIGEST),
    "version": Form("nightshift.release.version", _text(r"v\d+\.\d+\.\d+")),
    "commit": Form("nightshift.release.commit", _COMMIT),
    "prompt": Form("nightshift.prompt.digest", _DIGEST),
    "prompt_name": Form("nightshift.prompt.name", _text("plain|prompt|lora|bottleneck|full")),
    "corpus": Form("nightshift.corpus.digest", _DIGEST),
    "key": Form("nightshift.key.id", _text("[a-z2-7]{10}")),
    "sections": Form("nightshift.sections.ids", _all(_SHORT)),
    "scores": Form("nightshift.sections.scores", _all(_number)),
    "queue_s": Form("nightshift.queue.seconds", _number),
    "abstained": Form("nightshift.abstained", _bool),
    "blocked": Form("nightshift.blocked", _counts(r"[a-z][a-z_-]{1,40}")),
    "masked_in": Form("nightshift.masked.in", _MASKED),
    "masked_out": Form("nightshift.masked.out", _MASKED),
    "links": Form("nightshift.links.neutralised", _number),
    # of a stage
    "stage": Form("nightshift.stage", _text(r"[a-z][a-z0-9@_-]{0,60}")),
    "run": Form("nightshift.run", _text(r"(manual|scheduled|asset_triggered|backfill)[A-Za-z0-9_.:+-]{0,120}")),
    "outcome": Form("nightshift.outcome", _text("ran|refused|storage|failed")),
    "code": Form("nightshift.exit.code", _number),
    "computed": Form("nightshift.work.computed", _number),
    "reused": Form("nightshift.work.reused", _number),
}
NAMES = {form.name: word for word, form in ATTRIBUTES.items()}
