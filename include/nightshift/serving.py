"""What params.yaml may hold about the endpoint: where it listens, what runs the model, what it lets in and out.

No stage reads these but `judge`, which asks the engine that would serve: a release answers the same whoever asks it.
The defaults are those of a gateway for one team; a key may have narrower limits of its own, and never wider ones.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from nightshift.params import Section, Strict
from nightshift.sections import Share


def _network(text: str) -> str:
    """Raises ValueError for what is neither an address nor a network in CIDR notation."""
    ipaddress.ip_network(text)
    return text


Proxy = Annotated[str, AfterValidator(_network)]
Seconds = Annotated[float, Field(gt=0, le=3600)]
Count = Annotated[int, Field(ge=1)]
Few = Annotated[int, Field(ge=1, le=64)]


class Tls(Strict):
    """Files in PEM."""

    certificate: str = Field(min_length=1, description="The server's certificate, with the chain below its root")
    key: str = Field(min_length=1, description="Its private key")


class Listen(Section):
    """Where the endpoint listens."""

    name: ClassVar[str] = "serve.listen"
    host: str = Field(min_length=1, description="Address; beyond loopback only with `tls` or `behind_proxy`")
    tls: Tls | None = Field(description="Certificate and key; null for plain HTTP")
    behind_proxy: list[Proxy] = Field(
        description="Addresses or networks of proxies that end TLS and whose X-Forwarded-For is believed; [] for none"
    )

    def within(self, root: Path) -> Listen:
        """The same with whole paths: those in params.yaml are relative to its folder."""
        if self.tls is None:
            return self
        whole = Tls(certificate=str(root / self.tls.certificate), key=str(root / self.tls.key))
        return self.model_copy(update={"tls": whole})


class Engines(Section):
    """What runs the model."""

    name: ClassVar[str] = "serve.engine"
    kind: Literal["openvino", "transformers", "vllm"] = Field(
        description="OpenVINO on a CPU, vLLM on a GPU, or transformers' own server, one answer after another"
    )


class Warm(Section):
    """How many engines of the release in production are warm. Not of `serve.engine`: `judge` reads that."""

    name: ClassVar[str] = "serve.warm"
    least: Few = Field(description="Engines at all times")
    most: Few = Field(description="Engines in the busiest hour; fewer where memory holds fewer")
    quiet_s: Seconds = Field(description="How long nothing asked for an engine before it goes")

    @model_validator(mode="after")
    def _ordered(self) -> Warm:
        if self.least > self.most:
            raise ValueError(
                f"least is {self.least} and most {self.most}; the fewest engines are no more than the most"
            )
        return self


class KeyLimits(Strict):
    """How much one key may ask."""

    concurrency: Count = Field(description="Requests at a time")
    requests_a_minute: Count = Field(description="Requests a minute, all at once or spread")
    tokens_a_minute: Count = Field(description="Tokens of prompt and answer a minute; the answer's are reserved whole")


class Limits(Section):
    """What arrives, counted as it arrives, and how long anything may take."""

    name: ClassVar[str] = "serve.limits"
    header_bytes: Count = Field(description="Bytes of a request's line and headers")
    header_fields: Count = Field(description="Fields of a request's header")
    body_bytes: Count = Field(description="Bytes of a request's body")
    json_depth: int = Field(ge=8, le=100, description="Depth of a body's JSON")
    messages: Count = Field(description="Turns of a conversation")
    part_bytes: Count = Field(description="Bytes of one turn's text")
    header_s: Seconds = Field(description="From the first byte of a request to the end of its headers")
    body_s: Seconds = Field(description="From there to the end of its body")
    idle_s: Seconds = Field(description="A connection without a request")
    queue_s: Seconds = Field(description="Waiting for an engine")
    first_token_s: Seconds = Field(description="From the engine's start to its first token")
    total_s: Seconds = Field(description="From the engine's start to its last token; a request is over `queue_s` later")
    write_s: Seconds = Field(description="A client that reads nothing of its answer")
    connections: Count = Field(description="Open connections")
    connections_an_address: Count = Field(description="Of these, from one address that is no proxy")
    queue: Count = Field(description="Requests that wait for an engine")
    auth_failures_a_minute: Count = Field(description="Wrong keys from one address")
    key: KeyLimits

    @model_validator(mode="after")
    def _ordered(self) -> Limits:
        if self.first_token_s > self.total_s:
            raise ValueError("first_token_s is longer than total_s; the first token comes before the last")
        return self

    @property
    def request_s(self) -> float:
        """Seconds from the choice of a request's release to its last token: all its parts and waits together."""
        return self.queue_s + self.total_s


class Rails(Section):
    """What is taken out of what goes in and out."""

    name: ClassVar[str] = "serve.rails"
    personal_in: Literal["mask", "refuse", "keep"] = Field(description="Personal data and secrets in a question")
    personal_out: Literal["mask", "keep"] = Field(description="Personal data and secrets in an answer")
    harm: Literal["block", "keep"] = Field(description="Answers that include/policies/harm.yaml names")
    links: Literal["sources", "keep"] = Field(description="Links and images: only those that stand in the sections")
    abstain_below: float | None = Field(
        ge=0, le=1, description="Share of the question's words, by rarity, that its sections hold; null answers always"
    )
    abstention: str = Field(min_length=1, max_length=500, description="What is said instead of an answer then")


class Rollouts(Section):
    """How a release that was let out comes to answer everybody, and what sends it back."""

    name: ClassVar[str] = "serve.rollout"
    strategy: Literal["canary", "shadow", "blue-green", "immediate"] = Field(
        description="5, 25, 100 % of the keys; a mirror, then all; questions, then all; or all at once"
    )
    requests: Count = Field(description="Requests of clients that pass a step")
    questions: Count = Field(description="Questions with known answers that pass it where clients are few")
    hold_s: Seconds = Field(description="A step lasts at least this long")
    ready_s: Seconds = Field(description="From its assignment to its first answer; longer, and it goes back")
    failures: Count = Field(description="Fewer requests than these that were not answered whole are chance")
    failing: Share = Field(description="More than this share of them, and it goes back")
    questions_before: Count = Field(description="Questions before their answers count")
    right: Share = Field(description="Fewer than this share of them answered rightly, and it goes back")
    slower: float = Field(gt=1, le=10, description="Times the stable release's time to the first token, or for a token")
