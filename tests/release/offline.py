"""Run in an empty folder, with no network but a loopback of its own: unpack a bundle, start it, ask it one question.

Words: BUNDLE FOLDER QUESTION. Prints the answer as JSON, and what went on outside as far as it could be tried.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # linux/sockios.h, linux/if.h
WITHIN_S = 120
URL = "http://127.0.0.1:8000"


def loopback() -> None:
    """Bring up the loopback of a new network namespace: it is there, and down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        fcntl.ioctl(one, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))


def reachable() -> bool:
    """Whether anything outside this machine can be reached: there must be no route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect(("192.0.2.1", 9))
        except OSError:
            return False
    return True


def asked(folder: Path, question: str) -> dict[str, object]:
    """The endpoint's answer, as soon as it is ready."""
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(f"{URL}/readyz", timeout=5)
            break
        time.sleep(0.2)
    body = json.dumps({"model": "nightshift", "messages": [{"role": "user", "content": question}]}).encode()
    key = (folder / "var" / "first.key").read_text().strip()
    head = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    request = urllib.request.Request(f"{URL}/v1/chat/completions", body, head)
    answer: dict[str, object] = json.load(urllib.request.urlopen(request, timeout=60))
    return answer


def main() -> None:
    bundle, folder, question = sys.argv[1:]
    loopback()
    outside = reachable()
    started = subprocess.Popen([sys.executable, bundle, folder], start_new_session=True)
    try:
        answer = asked(Path(folder), question)
    finally:
        os.killpg(started.pid, signal.SIGTERM)
    print(json.dumps({"answer": answer, "outside": outside, "ended": started.wait(60)}))


if __name__ == "__main__":
    main()
