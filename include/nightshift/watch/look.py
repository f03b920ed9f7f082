"""Look once: read everything, write the report, tell people what is new, and say it to who started the look.

Started every fifteen minutes by the scheduler (dags/watch.py), and when a night ended badly; whoever looks, a fault is
told once (alerts.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nightshift import commit, notify, params, storage
from nightshift.notify import Channel, Credentials, Failed
from nightshift.sections import Night
from nightshift.watch import alerts, report
from nightshift.watch.report import Looked
from nightshift.watching import Notify


def seen(root: Path, home: Path, state: Path | str, since: float, now: int) -> Looked:
    """What there is to see. Raises ParamsError."""
    return report.look(root, home, state, params.load(root / params.FILE, Night), since, now)


def once(
    root: Path,
    home: Path,
    state: Path | str,
    environ: Mapping[str, str],
    now: int,
    take: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Look at minute now // 60; returns what is new, what is over, what goes on, and who could not be told.

    `take` is the scheduler's: what it has not taken yet, and may start a night, is `taken`, and not given again once
    this look has ended well. What a channel refuses for good holds up no other message, and is tried again at each look
    for a day: a person may mend a token or an address. Raises ParamsError, AccessDenied, StorageError, DiskFull.
    """
    told = params.load(root / params.FILE, Notify)
    credentials = Credentials.read(home, environ)
    with alerts.kept(home, now) as book:
        looked = seen(root, home, state, book.since, now)
        storage.write(f"{state}/{report.FILE}", commit.dumps(report.made(looked)).encode())
        news = alerts.step(book, looked.alerts, now, notify.channels(told))
        alerts.save(home, book)
        failed: dict[Channel, Failed] = {}
        for place, (message, to) in enumerate(book.waiting):
            away = [one for one in to if one in failed and failed[one].again]
            now_failed = notify.send(message, [one for one in to if one not in away], told, credentials, sleep)
            failed |= now_failed
            book.waiting[place] = (message, [one for one in to if one in away or one in now_failed])
        book.waiting = [one for one in book.waiting if one[1]]
        taken = book.untaken if take else []
        book.untaken = [] if take else book.untaken  # last: who is killed before it is given them again
        alerts.save(home, book)
    return {
        "opened": [asdict(one) for one in news.opened],
        "resolved": news.resolved,
        "open": {key: one.severity for key, one in book.open.items()},
        "taken": taken,
        "untold": {channel: why.reason for channel, why in failed.items()},
    }
