#!/usr/bin/env python3
"""The shell that DVC starts a stage's command with: it keeps what DVC hides.

DVC ends with 255 whatever the command did. This runs `$SHELL -c COMMAND`, passes its output on, and writes exit code,
signal, last lines of stderr, peak memory, seconds, processor time and energy to $DVC_AIRFLOW_RECORD. It is started as a
file, so its own folder (with modules that are called as others) is taken off the path first.
"""

import sys

if __name__ == "__main__":
    sys.path.pop(0)

import codecs
import io
import json
import os
import resource
import select
import signal
import subprocess
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

LINES, LONGEST = 20, 4_096  # last lines that are kept, and letters of each: its first, which say what it is about
WHOLE_PIPE = 1 << 20  # bytes: as much as one can hold
# by which DVC keeps a shell from reading its user's settings
QUIET = {"bash": ["--noprofile", "--norc"], "zsh": ["--no-rcs"], "fish": ["--no-config"]}
COUNTERS = Path("/sys/class/powercap")  # Linux: a counter of energy for each processor package


def main() -> int:
    """Run the command of `recorder -c COMMAND`; returns its exit code, 128 + n for signal n."""
    signal.signal(signal.SIGTERM, lambda *_: None)  # a handler, not SIG_IGN: exec hands that on to the command
    began, counted = time.monotonic(), counters()
    shell = os.environ["SHELL"]
    child = subprocess.Popen([shell, *QUIET.get(Path(shell).name, []), "-c", sys.argv[-1]], stderr=subprocess.PIPE)
    watch = Watch(child.pid, int(os.environ.get("DVC_AIRFLOW_MEMORY", "0")))
    tail = passed_on(child)
    child.wait()
    code = child.returncode if child.returncode >= 0 else 128 - child.returncode
    # of what the shell started, unless that says so itself, as Git does with 129 of words that it does not know
    by = -child.returncode if child.returncode < 0 else code - 128 if 129 < code < 128 + signal.NSIG else None
    record = {
        "code": code,
        "signal": by,
        "tail": tail,
        "cpu_seconds": round(sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]), 3),
        "memory_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
        "seconds": round(time.monotonic() - began, 3),
        "energy_joules": joules(counted, counters()),
        "exceeded_bytes": watch.exceeded,
        "allowed_bytes": watch.allowed,
    }
    if place := os.environ.get("DVC_AIRFLOW_RECORD"):
        with suppress(OSError), open(place, "a", encoding="utf-8") as out:  # noqa: PTH123  a list of commands has a line each
            out.write(json.dumps(record) + "\n")
    return code


def passed_on(child: subprocess.Popen[bytes]) -> list[str]:
    """Pass on what a command says on its stderr, and return its last lines.

    Until it ends, and not until each of its helpers does: what they say later is passed on by a process of their own,
    for without a reader they would be ended by SIGPIPE.
    """
    assert child.stderr is not None
    tail, rest = deque[str](maxlen=LINES), ""
    text = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")("replace"), translate=True)
    pipe, ended = child.stderr.fileno(), os.pidfd_open(child.pid)
    looked, over = select.poll(), False
    looked.register(pipe, select.POLLIN)
    looked.register(ended, select.POLLIN)
    while not over:
        ready = [one for one, _ in looked.poll()]
        over = ended in ready  # then one more look: what it said before stands in the pipe
        if pipe in ready:
            said = os.read(pipe, WHOLE_PIPE)
            more = text.decode(said, final=not said)
            sys.stderr.write(more)
            sys.stderr.flush()
            *lines, rest = (rest + more).split("\n")
            tail.extend(line[:LONGEST] for line in lines)
            rest = rest[:LONGEST]
            if not said:
                break
    else:
        subprocess.Popen(["cat"], stdin=pipe, stdout=sys.stderr)
    os.close(ended)
    return [*tail, rest][-LINES:] if rest else list(tail)


class Watch(threading.Thread):
    """End a command that takes more memory than it may, before the kernel ends whatever it likes.

    Args:
        pid: of the command's shell.
        allowed: bytes for it and all that it started; 0 for any number.
    """

    def __init__(self, pid: int, allowed: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.allowed, self.exceeded = pid, allowed, 0
        if allowed:
            self.start()

    def run(self) -> None:
        """Look ten times a second; shared pages count once, where it matters."""
        while not self.exceeded:
            time.sleep(0.1)
            family = descendants(self.pid)
            if sum(map(resident, family)) > self.allowed and (taken := sum(map(proportional, family))) > self.allowed:
                self.exceeded = taken
                for pid in family:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """A process and all below it; not what has left it (setsid), which hangs below the leader of the stage."""
    below: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            below.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
    found = [pid]
    for one in found:
        found += below.get(one, [])
    return found


def resident(pid: int) -> int:
    """Bytes that a process has in memory, those that it shares included."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    return 0


def proportional(pid: int) -> int:
    """Bytes that a process has in memory, of those that it shares its part; all of them where that is not told."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return resident(pid)


def counters(folder: Path = COUNTERS) -> dict[str, tuple[int, int]]:
    """Package → (microjoules so far, where its counter starts anew); empty where that may not be read."""
    found = {}
    for package in sorted(folder.glob("intel-rapl:?")):  # AMD's too
        try:
            now, most = (int((package / name).read_text()) for name in ("energy_uj", "max_energy_range_uj"))
        except (OSError, ValueError):
            return {}
        found[package.name] = (now, most)
    return found


def joules(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> float | None:
    """Energy between two readings of the counters; None where there are none."""
    if not before or before.keys() != after.keys():
        return None
    return sum((after[one][0] - before[one][0]) % after[one][1] for one in before) / 1e6


if __name__ == "__main__":
    sys.exit(main())
