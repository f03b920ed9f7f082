"""What the endpoint counted, minute by minute: good and valid events of every objective, by release.

The gateway adds (one writer), whoever judges reads: the burn-rate engine, the budget gate, the report. Kept in SQLite
under NIGHTSHIFT_HOME/watch for five weeks, so that 28 days are always whole. Adding is cumulative: an answer is counted
in the minute in which it is written down, and a gateway that starts anew adds to what is there, so that nothing like a
counter's reset exists. Silence is told apart from health: every `add` says that the gateway was alive in that minute,
also one with nothing in it, and `begin` and `end` say from when to when it was meant to be.

Of prompts and answers only histograms are kept (drift.py), as counts by hour; no text ever.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from nightshift.errors import StorageError, full, full_at, no_room

KEEP = 35 * 24 * 60  # minutes
TURNS = "turns"  # beside the objectives: what took or wanted a turn at a language model
AHEAD = 2  # minutes that a writer's clock may be ahead of a reader's
_TABLES = """
create table if not exists counted (
    minute integer, sli text, release text, good integer not null, valid integer not null,
    primary key (minute, sli, release)) without rowid;
create table if not exists heard (minute integer primary key);
create table if not exists meant (minute integer primary key, runs integer not null);
create table if not exists seen (
    hour integer, release text, what text, bucket integer, count integer not null,
    primary key (hour, release, what, bucket)) without rowid;
"""
Counted = Mapping[tuple[str, str], tuple[int, int]]  # (objective, release digest) → (good, valid)
Seen = Mapping[tuple[str, str, int], int]  # (release digest, what, bucket) → how often


@dataclass(frozen=True)
class Row:
    """Events of one minute: `minute` is seconds since 1970 // 60, `release` a digest ("" where none was serving)."""

    minute: int
    sli: str
    release: str
    good: int
    valid: int


class Counts:
    """The counts of one home. A method opens the file, does one thing and closes it: about a millisecond."""

    def __init__(self, home: Path) -> None:
        self.path = home / "watch" / "counts.sqlite"

    def add(self, minute: int, counted: Counted) -> None:
        """Add to a minute, and say that the gateway was alive in it. Raises ValueError for more good than valid.

        All or nothing. Raises DiskFull, StorageError.
        """
        if wrong := next((key for key, (good, valid) in counted.items() if not 0 <= good <= valid), None):
            raise ValueError(f"{wrong}: {counted[wrong]} are no (good, valid) events")
        rows = [(minute, *key, *pair) for key, pair in counted.items()]
        with self._writing() as db:
            db.executemany(
                "insert into counted values (?, ?, ?, ?, ?) on conflict do update "
                "set good = good + excluded.good, valid = valid + excluded.valid",
                rows,
            )
            db.execute("insert or ignore into heard values (?)", (minute,))
            _forget(db, minute)

    def see(self, minute: int, seen: Seen) -> None:
        """Add to the histograms of the hour that a minute is in."""
        with self._writing() as db:
            db.executemany(
                "insert into seen values (?, ?, ?, ?, ?) on conflict do update set count = count + excluded.count",
                [(minute // 60, *key, count) for key, count in seen.items()],
            )

    def begin(self, minute: int) -> None:
        """Say that the endpoint is meant to run from now on: its silence is a fault.

        One that was meant to run already is so since then: who starts again and again and never counts is silent.
        """
        if self.since(minute) is None:
            self._mean(minute, True)

    def end(self, minute: int) -> None:
        """Say that it was stopped on purpose: its silence means nothing."""
        self._mean(minute, False)

    def between(self, first: int, last: int) -> list[Row]:
        """What was counted from minute `first` to `last`, both included, in order; empty where nothing ever was."""
        with self._reading() as db:
            asked = "select * from counted where minute between ? and ? order by minute, sli, release"
            return [Row(*row) for row in db.execute(asked, (first, last))] if db else []

    def sums(self, first: int, last: int) -> dict[tuple[str, str], tuple[int, int]]:
        """(objective, release) → (good, valid) from minute `first` to `last`, both included."""
        with self._reading() as db:
            asked = "select sli, release, sum(good), sum(valid) from counted where minute between ? and ? group by 1, 2"
            rows = db.execute(asked, (first, last)) if db else []
            return {(sli, release): (good, valid) for sli, release, good, valid in rows}

    def totals(self, first: int, last: int) -> dict[str, tuple[int, int, int]]:
        """Objective → (good, valid, first minute with any) from minute `first` to `last`, both included."""
        with self._reading() as db:
            asked = (
                "select sli, sum(good), sum(valid), min(minute) from counted where minute between ? and ? group by 1"
            )
            rows = db.execute(asked, (first, last)) if db else []
            return {sli: (good, valid, begin) for sli, good, valid, begin in rows}

    def quarters(self, sli: str, first: int, last: int) -> dict[int, tuple[int, int]]:
        """What was asked, by quarters of an hour from minute `first` to `last`, both included.

        Quarter (minute // 15) → (valid events of an objective, minutes in which the gateway was alive): a quarter in
        which nothing was asked is there, one in which nobody could ask is not.
        """
        with self._reading() as db:
            asked = (
                "select h.quarter, coalesce(c.valid, 0), h.minutes from "
                "(select minute / 15 as quarter, count(*) as minutes from heard where minute between ?1 and ?2 "
                "group by 1) h left join (select minute / 15 as quarter, sum(valid) as valid from counted "
                "where sli = ?3 and minute between ?1 and ?2 group by 1) c on c.quarter = h.quarter"
            )
            rows = db.execute(asked, (first, last, sli)) if db else []
            return {quarter: (valid, minutes) for quarter, valid, minutes in rows}

    def seen(self, first: int, last: int) -> dict[tuple[str, str, int], int]:
        """Histograms of the hours from that of minute `first` to that of `last`: (release, what, bucket) → count."""
        with self._reading() as db:
            asked = "select release, what, bucket, sum(count) from seen where hour between ? and ? group by 1, 2, 3"
            rows = db.execute(asked, (first // 60, last // 60)) if db else []
            return {(release, what, bucket): count for release, what, bucket, count in rows}

    def heard(self, now: int) -> int | None:
        """The last minute up to `now` in which the gateway was alive; None for never.

        A minute that lies further ahead than clocks differ does not count: it would hide that nothing came since.
        """
        return self._one("select max(minute) from heard where minute <= ?", now + AHEAD)

    def since(self, now: int) -> int | None:
        """From which minute the endpoint is meant to run; None when it is not, or never was."""
        return self._one(
            "select case when runs then minute end from meant where minute <= ? order by minute desc limit 1",
            now + AHEAD,
        )

    def _one(self, asked: str, *values: int) -> int | None:
        with self._reading() as db:
            row = db.execute(asked, values).fetchone() if db else None
            return None if row is None or row[0] is None else int(row[0])

    def _mean(self, minute: int, runs: bool) -> None:
        with self._writing() as db:
            db.execute("insert or replace into meant values (?, ?)", (minute, runs))

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._told():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.parent.chmod(0o700)
            with closing(sqlite3.connect(self.path, timeout=10)) as db:
                db.execute("pragma journal_mode = wal")  # readers neither wait for the writer nor hold it up
                db.execute("pragma synchronous = normal")  # a power cut may cost the last minute, never the file
                db.executescript(_TABLES)
                with db:
                    yield db

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        """A connection; None where nothing was ever counted: looking makes no file."""
        with self._told():
            if not self.path.is_file():
                yield None
                return
            with closing(sqlite3.connect(self.path, timeout=10)) as db:
                db.executescript(_TABLES)
                yield db

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if full(error) or full_at(self.path):  # SQLite says "disk I/O error" of both
                raise no_room(str(self.path)) from error
            do = "check that it is whole and may be written, or remove it: counting begins anew"
            raise StorageError(f"the counts cannot be used ({error})", str(self.path), do) from error


def _forget(db: sqlite3.Connection, minute: int) -> None:
    """Drop what is older than five weeks; of `meant` the last word stays, however old."""
    db.execute("delete from counted where minute < ?", (minute - KEEP,))
    db.execute("delete from heard where minute < ?", (minute - KEEP,))
    db.execute("delete from seen where hour < ?", ((minute - KEEP) // 60,))
    db.execute("delete from meant where minute < ? and minute < (select max(minute) from meant)", (minute - KEEP,))
