"""What params.yaml may hold about deployment: the answers that a pattern follows from, and the environments.

No stage reads these: whoever asks, and from where, a release is the same bytes. What follows from the answers stands in
include/policies/deployment.yaml, and `nightshift pattern` says it.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from nightshift.params import Section, Strict
from nightshift.serving import Proxy

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
CANARY = "canary"  # the registry's environment of rollouts
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Word = Annotated[str, Field(pattern=r"^[a-z]+$")]


class Busy(Strict):
    """The hours in which most of the week's questions come."""

    days: list[Day] = Field(min_length=1, description="Days of the week")
    from_hour: int = Field(ge=0, le=23, description="First busy hour, in night.timezone")
    to_hour: int = Field(ge=1, le=24, description="Hour at which it is quiet again")
    share: float = Field(ge=0, le=1, description="Share of a busy day's questions that come in these hours")

    @model_validator(mode="after")
    def _ordered(self) -> Busy:
        if self.from_hour >= self.to_hour:
            raise ValueError(f"the busy hours end at {self.to_hour}, before they begin at {self.from_hour}")
        if len(set(self.days)) < len(self.days):
            raise ValueError("a day stands twice among the busy days; name each once")
        return self

    @property
    def hours(self) -> int:
        """Busy hours of a busy day."""
        return self.to_hour - self.from_hour


class Traffic(Strict):
    """How much is asked, and when."""

    users: int = Field(ge=1, description="People or programs that ask")
    requests_a_day: int = Field(ge=0, description="Questions on a busy day, of all of them together")
    seconds_an_answer: float = Field(gt=0, description="Seconds that an engine takes for an answer, as measured")
    busy: Busy | None = Field(description="The busy hours; null when every hour is like the others")


class Deployment(Section):
    """The considerations that a deployment pattern follows from."""

    name: ClassVar[str] = "deployment"
    asked_from: Literal["device", "network", "internet", "offline"] = Field(
        description="device: this machine alone; network: machines of one's own; internet: anywhere; "
        "offline: a machine without a network, brought there as one file"
    )
    waits: bool = Field(description="Whether somebody waits for each answer; false: files of questions")
    access: Literal["shared", "personal", "strict"] = Field(
        description="shared: a key for many; personal: a key each; strict: that, short-lived, and two people to promote"
    )
    proxies: list[Proxy] = Field(description="Addresses or networks of proxies that end TLS; [] for none")
    traffic: Traffic
    context: int = Field(ge=64, description="Tokens of question, sections and answer together that are needed")
    private_architecture: bool = Field(description="Whether architecture and training parameters are nobody's business")


class Environment(Strict):
    """A place that a release is promoted to."""

    name: Word = Field(description="Lower-case letters; part of the tag that assigns a release")
    target: str | None = Field(description="Folder or s3://bucket/prefix that its endpoint pulls from; null: this one")
    slo: str = Field(
        pattern=r"^[\w-]+$",
        description="Its objectives: a folder of include/policies; the endpoint, which serves prod, keeps prod's",
    )
    keys: Word = Field(description="The word in its keys, ns_WORD_…; keys made here are prod's")
    approvals: int = Field(ge=0, le=5, description="People beside the proposer who have to agree")


class Environments(Section):
    """Where releases are promoted to, in order; nights deploy to the first, and judge against `prod`."""

    name: ClassVar[str] = "environments"
    items: list[Environment] = Field(min_length=1, description="The environments, first to last")

    @model_validator(mode="after")
    def _sound(self) -> Environments:
        names = [one.name for one in self.items]
        if twice := next((one for one in names if names.count(one) > 1), None):
            raise ValueError(f"two environments are named {twice!r}; give each a name of its own")
        if CANARY in names:
            raise ValueError(f"{CANARY} is where a rollout tries a candidate; name the environment otherwise")
        if "prod" not in names:
            raise ValueError("none is named prod, which nights judge against; name one so")
        if self.items[0].approvals:
            what = f"nights deploy to {names[0]}, the first, and nobody approves at night"
            raise ValueError(f"{what}; put an environment without approvals before it")
        return self

    @property
    def prod(self) -> Environment:
        """The environment that this project's endpoint serves."""
        return next(one for one in self.items if one.name == "prod")

    def before(self, name: str) -> Environment | None:
        """The environment that a release comes from when it is promoted to this one; None for the first."""
        names = [one.name for one in self.items]
        return self.items[names.index(name) - 1] if names.index(name) else None

    @property
    def first(self) -> str:
        """The environment that nights deploy to."""
        return self.items[0].name
