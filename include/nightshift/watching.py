"""What params.yaml may hold about watching: what an alert starts, and who is told.

No stage reads these. Credentials are none of them: they come from the environment or from NIGHTSHIFT_HOME (notify.py).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from nightshift.params import Section, Strict

LOOPBACK = ("localhost", "127.0.0.1", "::1")
Address = Annotated[str, Field(pattern=r"^[^\s@<>,]+@[^\s@<>,]+$")]


class Watch(Section):
    """What is done about an alert."""

    name: ClassVar[str] = "watch"
    retrain_on_alert: bool = Field(description="Whether an alert about health, accuracy or privacy starts a night")


class Email(Strict):
    """A mail server that takes messages; its user and password are in the environment or NIGHTSHIFT_HOME."""

    host: str = Field(min_length=1, description="Name or address of the server")
    port: int = Field(ge=1, le=65_535, description="587 with starttls, 465 with tls")
    security: Literal["starttls", "tls", "plain"] = Field(description="plain is for loopback alone")
    sender: Address = Field(description="Address that messages come from")
    to: list[Address] = Field(min_length=1, description="Addresses that they go to")

    @model_validator(mode="after")
    def _unseen(self) -> Email:
        if self.security == "plain" and self.host not in LOOPBACK:
            raise ValueError(f"mail to {self.host} would go in the clear; use starttls or tls")
        return self


class Webhook(Strict):
    """An address that takes a POST with JSON, as Slack, Mattermost and most others do (`text` is what they show)."""

    url: str | None = Field(description="Address; null where it is a secret itself: NIGHTSHIFT_WEBHOOK_URL")

    @model_validator(mode="after")
    def _an_address(self) -> Webhook:
        if self.url is not None:
            check(self.url)
        return self


class Notify(Section):
    """Who is told of alerts and of nights that broke, were refused or are late."""

    name: ClassVar[str] = "notify"
    email: Email | None = Field(description="Where mail is sent; null for none")
    webhook: Webhook | None = Field(description="What is called; null for none")


def check(url: str) -> None:
    """Raises ValueError for an address that is none, goes in the clear beyond loopback, or holds a password."""
    parts = urlsplit(url)
    _ = parts.port  # raises for one that is no number
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it is no address; write https://host/path")
    if parts.username or parts.password:
        raise ValueError("an address with a password does not belong here; set NIGHTSHIFT_WEBHOOK_TOKEN")
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise ValueError(f"messages to {parts.hostname} would go in the clear; use https")
