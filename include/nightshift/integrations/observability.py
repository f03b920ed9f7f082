"""Griptape's calls as OpenTelemetry spans with `gen_ai.*` names, which Griptape's own driver does not have.

    with Observability(observability_driver=ObservabilityDriver()):
        agent.run("…")

A span for each agent run, prompt, tool and search, and none for the steps in between. No text of a prompt, an answer
or an error is in any of them: they say how many tokens, which model, which sections. The current trace goes along with
every request to the endpoint (`traceparent`), so that its spans and the gateway's are one trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import openai
from attrs import Factory, define, field
from griptape.common import Message, Observable
from griptape.drivers.observability import BaseObservabilityDriver
from griptape.drivers.prompt import BasePromptDriver
from griptape.drivers.vector import BaseVectorStoreDriver
from griptape.structures import Structure
from griptape.tools import BaseTool
from opentelemetry import propagate, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from nightshift import attributes

# names of attributes: those that the gateway's spans have, and what only an application knows
_SHARED = ("operation", "provider", "model", "max_tokens", "temperature", "input_tokens", "output_tokens")
NAMES = {word: attributes.ATTRIBUTES[word].name for word in (*_SHARED, "error", "sections", "scores")} | {
    "seed": "gen_ai.request.seed",
    "agent": "gen_ai.agent.id",
    "tool": "gen_ai.tool.name",
}


@define
class ObservabilityDriver(BaseObservabilityDriver):
    """Emits the spans.

    Args:
        tracer: by default that of OpenTelemetry's global provider.
        provider: whose models the prompt drivers ask.
    """

    provider: str = field(default="nightshift", kw_only=True)
    tracer: Tracer = field(
        default=Factory(lambda: trace.get_tracer("nightshift.griptape", schema_url=attributes.SCHEMA_URL)), kw_only=True
    )

    def observe(self, call: Observable.Call) -> Any:
        """Run a call of Griptape's, inside a span where it is one of those that have one."""
        about = described(call, self.provider)
        if about is None:
            return call()
        name, kind, asked = about
        with self.tracer.start_as_current_span(
            name, kind=kind, attributes=named(asked), record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                result = call()
            except Exception as error:
                span.set_attributes(named({"error": type(error).__name__}))
                span.set_status(Status(StatusCode.ERROR))
                raise
            _answered(span, result)
            return result

    def get_span_id(self) -> str | None:
        """The current span's id, 16 hex digits; None outside of any."""
        context = trace.get_current_span().get_span_context()
        return trace.format_span_id(context.span_id) if context.is_valid else None


def described(call: Observable.Call, provider: str) -> tuple[str, SpanKind, dict[str, Any]] | None:
    """Name, kind and attributes of a call's span; None for a call that has none."""
    made, verb = call.instance, call.func.__name__
    if isinstance(made, BasePromptDriver) and verb == "run":
        said = {"model": made.model, "temperature": made.temperature, "max_tokens": made.max_tokens}
        said |= {"operation": "chat", "provider": provider, "seed": getattr(made, "seed", None)}
        return f"chat {made.model}", SpanKind.CLIENT, said
    if isinstance(made, Structure) and verb == "run":
        return f"invoke_agent {type(made).__name__}", SpanKind.INTERNAL, {"operation": "invoke_agent", "agent": made.id}
    if isinstance(made, BaseTool) and verb == "try_run":
        return f"execute_tool {made.name}", SpanKind.INTERNAL, {"operation": "execute_tool", "tool": made.name}
    if isinstance(made, BaseVectorStoreDriver) and verb == "query":
        return "retrieval", SpanKind.INTERNAL, {"operation": "retrieval"}
    return None


def named(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes by their names in the conventions; None says nothing."""
    return {NAMES[word]: value for word, value in attributes.items() if value is not None}


def carrying() -> openai.DefaultHttpxClient:
    """An HTTP client for openai's that sends the current trace along as `traceparent`."""
    return openai.DefaultHttpxClient(event_hooks={"request": [lambda request: propagate.inject(request.headers)]})


def _answered(span: Span, result: Any) -> None:
    """Note what a call gave: the tokens of a message, or the sections of a search."""
    if isinstance(result, Message):
        tokens = {"input_tokens": result.usage.input_tokens, "output_tokens": result.usage.output_tokens}
        span.set_attributes(named({name: None if n is None else int(n) for name, n in tokens.items()}))
    elif isinstance(result, list) and all(isinstance(one, BaseVectorStoreDriver.Entry) for one in result):
        found = {"sections": [one.id for one in result], "scores": [one.score for one in result]}
        span.set_attributes(named(found))
