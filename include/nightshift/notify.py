"""Tell people: one message by mail and by a webhook, each tried again with back-off until it is taken.

What is sent says what is wrong and where to look, and holds no text of documents, prompts or answers. Credentials come
from the environment or from NIGHTSHIFT_HOME/notify.env (NAME=value lines, for its owner alone), never from
params.yaml. A message may arrive twice where the answer to the first was lost: its key is the same both times, as
Message-ID of the mail and as Idempotency-Key of the call.
"""

from __future__ import annotations

import json
import logging
import smtplib
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from email.message import EmailMessage
from email.utils import formatdate
from pathlib import Path
from typing import Literal

import httpx

from nightshift.errors import AccessDenied, ParamsError
from nightshift.watching import Email, Notify, check

log = logging.getLogger("nightshift.notify")

FILE = "notify.env"
NAMES = ("NIGHTSHIFT_SMTP_USER", "NIGHTSHIFT_SMTP_PASSWORD", "NIGHTSHIFT_WEBHOOK_URL", "NIGHTSHIFT_WEBHOOK_TOKEN")
TRIES = 4  # after 1, 2 and 4 seconds; what is not taken then waits for the next look
ANSWER_WITHIN_S = 10.0
Channel = Literal["email", "webhook"]


@dataclass(frozen=True)
class Message:
    """What is told. `key` is the same however often it is sent; `time` is seconds since 1970."""

    key: str
    state: Literal["alert", "resolved"]
    severity: str
    subject: str
    text: str
    time: int


@dataclass(frozen=True)
class Credentials:
    """What opens the channels."""

    user: str | None = None
    password: str | None = None
    url: str | None = None
    token: str | None = None

    @classmethod
    def read(cls, home: Path, environ: Mapping[str, str]) -> Credentials:
        """From the environment, else from the home's file. Raises AccessDenied for a file that others may read."""
        path = home / FILE
        kept: dict[str, str] = {}
        if path.is_file():
            if path.stat().st_mode & 0o077:
                raise AccessDenied("others may read it", str(path), f"chmod 600 {path}")
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
            kept = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
        return cls(*(environ.get(name) or kept.get(name) for name in NAMES))


class Failed(Exception):
    """A message that a channel did not take. `again`: whether another try may help."""

    def __init__(self, reason: str, again: bool) -> None:
        self.reason, self.again = reason, again
        super().__init__(reason)


def channels(notify: Notify) -> list[Channel]:
    """Those that params.yaml names."""
    named: dict[Channel, object] = {"email": notify.email, "webhook": notify.webhook}
    return [channel for channel, settings in named.items() if settings is not None]


def send(
    message: Message,
    to: Iterable[Channel],
    notify: Notify,
    credentials: Credentials,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[Channel, Failed]:
    """Send a message over these channels; returns why not, for each that did not take it."""
    failed: dict[Channel, Failed] = {}
    for channel in to:
        for tried in range(TRIES):
            try:
                _mail(message, notify, credentials) if channel == "email" else _call(message, notify, credentials)
                failed.pop(channel, None)
                break
            except Failed as error:
                failed[channel] = error
                if not error.again or tried == TRIES - 1:
                    break
            sleep(2.0**tried)
    return failed


def _mail(message: Message, notify: Notify, credentials: Credentials) -> None:
    assert notify.email is not None
    mail = notify.email
    letter = EmailMessage()
    letter["From"], letter["To"], letter["Subject"] = mail.sender, ", ".join(mail.to), message.subject
    letter["Date"], letter["Message-ID"] = formatdate(message.time), f"<{message.key}@{mail.sender.partition('@')[2]}>"
    letter["Auto-Submitted"] = "auto-generated"
    letter.set_content(message.text + "\n")
    try:
        with _server(mail) as server:
            if mail.security == "starttls":
                server.starttls(context=ssl.create_default_context())
            if credentials.user and credentials.password:
                server.login(credentials.user, credentials.password)
            refused = server.send_message(letter)  # raises where nobody gets it
    except smtplib.SMTPResponseException as error:
        raise Failed(f"the mail server answered {error.smtp_code}", again=error.smtp_code < 500) from None
    except smtplib.SMTPRecipientsRefused as error:
        codes = [code for code, _ in error.recipients.values()]
        raise Failed(f"the mail server takes no mail for them ({codes[0]})", again=codes[0] < 500) from None
    except ssl.SSLCertVerificationError as error:
        raise Failed(f"the mail server's certificate does not hold ({error.verify_message})", again=False) from None
    except (smtplib.SMTPException, OSError) as error:
        raise Failed(f"the mail server did not answer ({type(error).__name__})", again=True) from None
    if refused:  # the others have it: once more would be twice for them
        log.warning("the mail server takes no mail for %s: %s", ", ".join(refused), message.subject)


def _server(mail: Email) -> smtplib.SMTP:
    if mail.security == "tls":
        context = ssl.create_default_context()
        return smtplib.SMTP_SSL(mail.host, mail.port, timeout=ANSWER_WITHIN_S, context=context)
    return smtplib.SMTP(mail.host, mail.port, timeout=ANSWER_WITHIN_S)


def _call(message: Message, notify: Notify, credentials: Credentials) -> None:
    assert notify.webhook is not None
    url = notify.webhook.url or credentials.url
    if url is None:
        raise Failed("no address is given: set NIGHTSHIFT_WEBHOOK_URL", again=False)
    head = {"Idempotency-Key": message.key, "Content-Type": "application/json"}
    head |= {"Authorization": f"Bearer {credentials.token}"} if credentials.token else {}
    try:
        check(url)
        body = json.dumps(asdict(message))
        answer = httpx.post(url, content=body, headers=head, timeout=ANSWER_WITHIN_S, follow_redirects=False)
    except ValueError as error:
        raise Failed(str(error), again=False) from None
    except httpx.HTTPError as error:
        raise Failed(f"the webhook did not answer ({type(error).__name__})", again=True) from None
    if not answer.is_success:
        again = answer.status_code >= 500 or answer.status_code in (408, 429)
        raise Failed(f"the webhook answered {answer.status_code}", again)


def prove(notify: Notify, credentials: Credentials, now: int) -> dict[Channel, str]:
    """Send a message that says that messages arrive. Raises ParamsError where no channel is named."""
    if not channels(notify):
        raise ParamsError("no channel is named", "params.yaml: notify", "give it email, webhook or both")
    text = "This is what a message of Nightshift looks like. Nothing is wrong."
    message = Message(f"trial-{now}", "resolved", "trial", "Nightshift: a trial", text, now)
    failed = send(message, channels(notify), notify, credentials)
    return {channel: why.reason for channel, why in failed.items()}
