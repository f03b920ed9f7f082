"""What is open, what is new, what is over: so that a fault is told once, and its end once.

Kept in NIGHTSHIFT_HOME/watch/alerts.json, written before anything is sent: what is killed in between is sent again,
under the same key. A message that a channel did not take waits for the next look, at most a day.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nightshift import commit
from nightshift.errors import StorageError
from nightshift.notify import Channel, Message
from nightshift.slo import Alert, Severity

WORSE: dict[Severity, int] = {"ticket": 1, "page": 2}
WAITS_S = 86_400
RETRAINS = ("health", "accuracy", "privacy")  # what another night may mend; a night's own trouble starts none


@dataclass(frozen=True)
class Open:
    """An alert that goes on: as it was told, and since when (seconds since 1970)."""

    severity: Severity
    sentence: str
    since: int


@dataclass
class Book:
    """What is kept from one look to the next.

    Args:
        since: of the first look; a night that was due before it is not missed.
        open: alerts that go on, by id.
        waiting: messages, and the channels that have not taken them.
        untaken: ids of alerts that may start a night and that the scheduler has not taken yet: another who looks, as a
            person does, takes no alert away from it.
    """

    since: int
    open: dict[str, Open] = field(default_factory=dict)
    waiting: list[tuple[Message, list[Channel]]] = field(default_factory=list)
    untaken: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """As the file holds it."""
        waiting = [{"message": asdict(message), "to": to} for message, to in self.waiting]
        known = {key: asdict(one) for key, one in self.open.items()}
        return {"since": self.since, "open": known, "waiting": waiting, "untaken": self.untaken}


@dataclass(frozen=True)
class News:
    """What one look found: alerts that are new or worse, and ids of those that are over."""

    opened: list[Alert]
    resolved: list[str]


def merged(found: Iterable[Alert]) -> dict[str, Alert]:
    """One alert an id: of several the worst severity, and what each says."""
    made: dict[str, Alert] = {}
    for one in found:
        known = made.get(one.id)
        if known is None:
            made[one.id] = one
            continue
        severity = max(known.severity, one.severity, key=WORSE.__getitem__)
        made[one.id] = Alert(one.id, severity, f"{known.sentence}; {one.sentence}")
    return made


def step(book: Book, found: Iterable[Alert], now: int, channels: Iterable[Channel]) -> News:
    """Take what is wrong now into the book, with the messages that come of it. A milder alert stays as it was told.

    What waits for a channel that is named no more is for the others alone.
    """
    current, to = merged(found), list(channels)
    book.waiting = [(message, [one for one in left if one in to]) for message, left in book.waiting]
    opened = [one for one in current.values() if _is_news(book.open.get(one.id), one)]
    resolved = [key for key in book.open if key not in current]
    book.untaken += [one.id for one in opened if one.id in RETRAINS and one.id not in book.open]
    book.untaken = [key for key in dict.fromkeys(book.untaken) if key in current]
    for one in opened:
        since = book.open[one.id].since if one.id in book.open else now
        book.open[one.id] = Open(one.severity, one.sentence, since)
        _post(book, Message(_key(one.id, since, one.severity), "alert", one.severity, *_said(one), now), to)
    for key in resolved:
        over = book.open.pop(key)
        text = f"{over.sentence}: that is over."
        subject = f"Nightshift: resolved: {key}"
        _post(book, Message(_key(key, over.since, "resolved"), "resolved", over.severity, subject, text, now), to)
    book.waiting = [(message, left) for message, left in book.waiting if message.time + WAITS_S > now and left]
    return News(opened, resolved)


@contextmanager
def kept(home: Path, now: int) -> Iterator[Book]:
    """The book, for one look at a time; what it then holds is written when `save` is called. Raises StorageError."""
    folder = home / "watch"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    with (folder / "alerts.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield _read(folder / "alerts.json", now)


def first_look(home: Path, now: int) -> int:
    """Since when somebody looks, seconds since 1970; `now` where nobody does yet."""
    return _read(home / "watch" / "alerts.json", now).since


def save(home: Path, book: Book) -> None:
    """Write the book, whole or not at all."""
    commit.file(home / "watch" / "alerts.json", commit.dumps(book.as_json()), 0o600)


def _read(path: Path, now: int) -> Book:
    if not path.is_file():
        return Book(now)
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        known = {key: Open(**one) for key, one in said["open"].items()}
        waiting = [(Message(**one["message"]), one["to"]) for one in said["waiting"]]
        return Book(said["since"], known, waiting, said["untaken"])
    except (ValueError, TypeError, KeyError) as error:
        do = "remove it: what is open is then told again"
        raise StorageError(f"what is open cannot be read ({error})", str(path), do) from None


def _is_news(known: Open | None, now: Alert) -> bool:
    return known is None or WORSE[now.severity] > WORSE[known.severity]


def _post(book: Book, message: Message, to: list[Channel]) -> None:
    if to:
        book.waiting.append((message, list(to)))


def _said(one: Alert) -> tuple[str, str]:
    text = f"{one.sentence}.\n\n`nightshift report` and `nightshift slo show` say how things stand."
    return f"Nightshift: {one.severity}: {one.id}", text


def _key(alert: str, since: int, state: str) -> str:
    plain = "".join(letter if letter.isalnum() else "-" for letter in alert)
    return f"{plain}-{since}-{state}"
