"""Lines that are kept for a while: appended to files of a bounded size, the oldest removed by bytes and by age.

A service's lines lie in `SERVICE-20261126T020304Z.jsonl` files, for their owner alone. Several processes may append to
the newest at once: each write is one `write` with O_APPEND. Nothing is fsynced: lines of the last seconds may be lost
with the machine, and a torn last line is passed over by `lines`, and closed by the next writer: a reader may then meet
a line that is none.
"""

from __future__ import annotations

import calendar
import errno
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

DAY_S = 86_400
LOOK_S = 60.0  # between two looks for old files
_STAMP = "%Y%m%dT%H%M%SZ"


@dataclass
class Segments:
    """The lines of one service in one folder.

    Args:
        folder: made when the first line comes, for its owner alone.
        service: a word; the files' names begin with it.
        segment_bytes: a file that is larger gets a successor, and so does one that is a day old.
        total_bytes: of all its files together, at most (and one segment more, while it is written).
        days: no line is kept longer; a file goes when it was begun so long ago, the newest too.
    """

    folder: Path
    service: str
    segment_bytes: int = 8_000_000
    total_bytes: int = 128_000_000
    days: float = 30.0
    _path: Path | None = field(default=None, init=False)
    _looked: float = field(default=0.0, init=False)  # when old files were looked for last

    def append(self, content: bytes, now: float) -> None:
        """Append whole lines at `now`, seconds since 1970. Raises OSError, also where the disk took a part of them.

        That part stays, since another process may have written behind it; the next writer closes its last line.
        """
        path = self._current(now)
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.lseek(handle, 0, os.SEEK_END)
            torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
            whole = b"\n" + content if torn else content
            if os.write(handle, whole) != len(whole):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        finally:
            os.close(handle)

    def tidy(self, now: float) -> None:
        """Prune once a minute, for those who keep calling."""
        if now - self._looked > LOOK_S:
            self._looked = now
            self.prune(now)

    def prune(self, now: float) -> None:
        """Remove what is too old, and of the rest what is too much: the oldest first, but for the newest file."""
        found = files(self.folder, self.service)
        left = sum(map(_size, found))
        for path in found:
            old = now - opened(path) > self.days * DAY_S
            if old or (left > self.total_bytes and path != found[-1]):
                left -= _size(path)
                path.unlink(missing_ok=True)

    def _current(self, now: float) -> Path:
        """The file to append to: the newest while it is small and of this day, else a new one."""
        if self._path is None:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.prune(now)
            known = files(self.folder, self.service)
            self._path = known[-1] if known else self._named(now)
        if self._full(self._path, now):
            self._path = self._named(now)
            self.prune(now)
        return self._path

    def _full(self, path: Path, now: float) -> bool:
        return _size(path) >= self.segment_bytes or now - opened(path) > DAY_S

    def _named(self, now: float) -> Path:
        return self.folder / f"{self.service}-{time.strftime(_STAMP, time.gmtime(now))}.jsonl"


def files(folder: Path, service: str = "*") -> list[Path]:
    """The files of a service, or of all, oldest first."""
    return sorted(folder.glob(f"{service}-????????T??????Z.jsonl"), key=lambda path: path.stem.rpartition("-")[2])


def opened(path: Path) -> float:
    """When a file was begun, by its name; seconds since 1970."""
    return float(calendar.timegm(time.strptime(path.stem.rpartition("-")[2], _STAMP)))


def lines(path: Path, holding: bytes = b"") -> Iterator[bytes]:
    """The whole lines of a file, newest first, that hold these bytes; none where the file has gone meanwhile."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    end = content.rfind(b"\n") + 1
    while holding and (hit := content.rfind(holding, 0, end)) >= 0:
        start = content.rfind(b"\n", 0, hit) + 1
        yield content[start : content.index(b"\n", hit)]
        end = start
    if not holding:
        yield from reversed(content[:end].splitlines())


def _size(path: Path) -> int:
    """Bytes of a file; 0 where it is new, or somebody took it away."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
