"""What requests count is counted once, however often it is taken meanwhile."""

from __future__ import annotations

import sys
import threading
from collections import Counter

from nightshift.serve.meters import Meters


def test_events_that_are_noted_while_others_are_taken_are_not_lost() -> None:
    meters, seen, number = Meters(), Counter[str](), 20_000

    def note() -> None:
        for one in range(number):
            meters.event("privacy", str(one % 997), True)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads take turns as often as they can
    try:
        thread = threading.Thread(target=note)
        thread.start()
        rounds = 0
        while thread.is_alive():
            seen.update({release: valid for (_, release), (_, valid) in meters.take().items()})
            rounds += 1
        thread.join()
    finally:
        sys.setswitchinterval(before)
    seen.update({release: valid for (_, release), (_, valid) in meters.take().items()})
    assert rounds > 10
    assert sum(seen.values()) == number
