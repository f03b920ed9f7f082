"""From the considerations of a deployment to its pattern, and to a configuration with a reason for every line.

What is a choice stands in a table that people read and edit (include/policies/deployment.yaml); what is a number is
computed here from traffic and context. A contradiction between answers is refused with one sentence.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from nightshift import params
from nightshift.deployment import Deployment, Traffic
from nightshift.errors import ParamsError
from nightshift.hours import BUSY_ENGINE, engines, hourly, warm
from nightshift.params import Strict

TABLE = "include/policies/deployment.yaml"
FACTS = ("asked_from", "waits", "access", "private_architecture", "device", "proxies", "busy", "fits", "pattern")
BURST = 10  # a key may ask this many times as often as in the busiest hour's mean
QUEUE_S = 10  # seconds that a question may wait for an engine
BYTES_A_TOKEN = 16  # of text, at most, in a part: prose has about 4
READ_A_SECOND = 100  # tokens of a prompt: 145 were measured beside other work, for SmolLM2 on two cores
BOUNDS, HOURS = ("least", "most"), ("a quiet hour", "the busiest hour")  # of warm engines
Fits = Literal["yes", "no", "unknown"]
When = dict[str, str | bool | list[str]]


class Rule(Strict):
    """One line of the table."""

    when: When
    is_: Any = Field(alias="is")
    because: str = Field(min_length=1)


class Contradiction(Strict):
    """Answers that cannot be meant together."""

    when: When = Field(min_length=1)
    because: str = Field(min_length=1)
    do: str = Field(min_length=1)


class Table(Strict):
    """The decision table."""

    contradictions: list[Contradiction]
    lines: dict[str, list[Rule]]

    @classmethod
    def read(cls, path: Path) -> Table:
        """Read a table. Raises ParamsError, also for a condition that nothing answers."""
        try:
            found = cls.model_validate(params.plain(params.parse(path)))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ParamsError(f"{where}: {first['msg'].lower()}", str(path), "mend it there") from None
        asked = [one.when for one in found.contradictions] + [one.when for many in found.lines.values() for one in many]
        if unknown := sorted({name for when in asked for name in when} - set(FACTS)):
            raise ParamsError(f"nothing answers {unknown[0]!r}", str(path), f"known are {', '.join(FACTS)}")
        return found


@dataclass(frozen=True)
class Line:
    """One line of a configuration, and its reason."""

    key: str
    value: Any
    because: str


def derive(table: Table, answers: Deployment, device: str, context: int, engines_that_fit: int | None) -> list[Line]:
    """The configuration that follows, pattern first. Raises ParamsError for a contradiction.

    Args:
        device: where the engine computes, 'cpu' or 'cuda'.
        context: tokens that systems are made for (section `system`).
        engines_that_fit: into this machine's memory; None while there is no release to tell.
    """
    if answers.context > context:
        what = f"{answers.context} tokens are needed, and systems are made for {context}"
        raise ParamsError(what, "deployment.context", "raise system.context, or ask for less")
    pattern, facts = meant(table, answers, device, _fits(answers.traffic, engines_that_fit))
    rest = [_decided(table, key, facts) for key in table.lines if key != "pattern"]
    return [pattern, *rest, *numbers(answers, pattern.value, device, engines_that_fit)]


def meant(table: Table, answers: Deployment, device: str, fits: Fits) -> tuple[Line, dict[str, str | bool]]:
    """The pattern, and all that conditions may ask about. Raises ParamsError for answers that contradict each other."""
    facts = known(answers, device, fits)
    pattern = _decided(table, "pattern", facts)
    facts["pattern"] = pattern.value
    for one in table.contradictions:
        if _holds(one.when, facts):
            raise ParamsError(one.because, "deployment", one.do)
    return pattern, facts


def known(answers: Deployment, device: str, fits: Fits) -> dict[str, str | bool]:
    """What conditions may ask about, but for the pattern."""
    return {
        "asked_from": answers.asked_from,
        "waits": answers.waits,
        "access": answers.access,
        "private_architecture": answers.private_architecture,
        "device": device,
        "proxies": "some" if answers.proxies else "none",
        "busy": "some" if answers.traffic.busy else "none",
        "fits": fits,
    }


def numbers(answers: Deployment, pattern: str, device: str, engines_that_fit: int | None = None) -> Iterator[Line]:
    """The lines that are computed."""
    traffic, context = answers.traffic, answers.context
    busiest = max(hourly(traffic))
    yield Line("serve.listen.behind_proxy", list(answers.proxies), "these and no others say for whom they ask")
    yield from _warm(answers, device, engines_that_fit)
    if pattern == "batch":
        at = traffic.busy.to_hour % 24 if traffic.busy else 0
        yield Line("batch.starts", f"0 {at} * * *", "when the busy hours end" if traffic.busy else "no hour is busy")
    waiting = math.ceil(QUEUE_S / traffic.seconds_an_answer * warm(answers)[1])
    yield Line("serve.limits.queue", min(256, max(4, waiting)), f"as many as are answered in {QUEUE_S} s")
    yield from _key(answers, busiest)
    part = max(1 << 14, BYTES_A_TOKEN * context)
    yield Line("serve.limits.part_bytes", part, f"{context} tokens are no more text than this")
    yield Line("serve.limits.body_bytes", 4 * part, "a conversation of some such parts")
    first = 30.0 if device == "cuda" else max(30.0, float(math.ceil(context / READ_A_SECOND)))
    said = (
        "a GPU reads a prompt at once" if device == "cuda" else f"a prompt is read at {READ_A_SECOND} tokens a second"
    )
    yield Line("serve.limits.first_token_s", first, f"{said}, or faster")
    yield Line("serve.limits.total_s", 4 * first, "an answer is shorter than its prompt")


def _warm(answers: Deployment, device: str, engines_that_fit: int | None) -> Iterator[Line]:
    """How many engines are warm."""
    (least, most), room = warm(answers), 1 if device == "cuda" else engines_that_fit
    if not answers.waits:
        yield from (Line(f"serve.warm.{name}", 1, "nobody waits, and one works through the files") for name in BOUNDS)
        return
    said = f"{answers.traffic.seconds_an_answer:g} s each, an engine {BUSY_ENGINE:.0%} busy"
    if room is not None and room < most:
        said += "; one takes the GPU whole" if device == "cuda" else f"; memory holds {room}"
        least, most = (max(1, min(one, room)) for one in (least, most))
    for name, number, asked, when in zip(BOUNDS, (least, most), sorted(hourly(answers.traffic)), HOURS, strict=True):
        yield Line(f"serve.warm.{name}", number, f"{asked:.0f} questions in {when}, {said}")


def _key(answers: Deployment, busiest: float) -> Iterator[Line]:
    """What one key may ask."""
    shared, users = answers.access == "shared", answers.traffic.users
    at_once = min(64, max(2, users)) if shared else 2
    said = f"{users} may ask at the same time with it" if shared else "one person asks one thing, and one more"
    yield Line("serve.limits.key.concurrency", at_once, said)
    mean = busiest / 60 / (1 if shared else users)
    minute = min(6000, max(30, math.ceil(BURST * mean)))
    yield Line("serve.limits.key.requests_a_minute", minute, f"{BURST} times the busiest hour's mean, and 30 to 6,000")
    tokens = minute * answers.context
    yield Line("serve.limits.key.tokens_a_minute", tokens, "so many requests with a full window each")


def settings(path: Path, lines: Sequence[Line]) -> tuple[dict[str, Any], list[Line]]:
    """Values for keys that params.yaml has, and the lines that are done by hand."""
    document = params.parse(path)
    values = {one.key: one.value for one in lines if params.has(document, one.key)}
    return values, [one for one in lines if one.key not in values]


def overlay(lines: Sequence[Line]) -> Iterator[str]:
    """Lines of YAML, nested by their keys, each with its reason behind it."""
    seen: list[str] = []
    for one in sorted(lines, key=lambda line: line.key):
        *above, last = one.key.split(".")
        for depth, name in enumerate(above):
            if seen[: depth + 1] != above[: depth + 1]:
                seen = above[: depth + 1]
                yield f"{'  ' * depth}{name}:"
        seen = above
        yield f"{'  ' * len(above)}{last}: {flow(one.value)}  # {one.because}"


def flow(value: Any) -> str:
    """A value on one line of YAML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {flow(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(flow(one) for one in value) + "]"
    return json.dumps(value)


def _decided(table: Table, key: str, facts: Mapping[str, str | bool]) -> Line:
    """The first line of a key that holds. Raises ParamsError for a table that leaves a case out."""
    for one in table.lines.get(key, ()):
        if _holds(one.when, facts):
            return Line(key, one.is_, one.because)
    raise ParamsError(f"no line of {key} holds for {dict(facts)}", TABLE, "add one that does")


def _holds(when: When, facts: Mapping[str, str | bool]) -> bool:
    return all(facts.get(name) in (one if isinstance(one, list) else [one]) for name, one in when.items())


def _fits(traffic: Traffic, engines_that_fit: int | None) -> Fits:
    if engines_that_fit is None:
        return "unknown"
    return "yes" if engines(max(hourly(traffic)), traffic.seconds_an_answer) <= engines_that_fit else "no"
