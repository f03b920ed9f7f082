"""How long to wait before another try: twice as long after each in vain, up to a bound."""

from __future__ import annotations

DOUBLED_MOST = 40  # times; 2.0 to the power of 1,024 is no number any more, and who is away for a night gets there


def pause(times: int, first_s: float, longest_s: float) -> float:
    """Seconds to wait after `times` tries in vain, 1 or more: `first_s`, twice that, …, at most `longest_s`."""
    return min(first_s * 2.0 ** min(times - 1, DOUBLED_MOST), longest_s)
