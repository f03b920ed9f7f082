"""Where promtool is: Prometheus' own judge of rules."""

from __future__ import annotations

from tests.programs import program


def promtool() -> str:
    """The program; fails the test with a sentence where it is not there."""
    return program("promtool", "deploy/system.sh")
