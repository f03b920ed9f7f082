"""The report as a person reads it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

BECAME = {  # of rollouts.Outcome
    "proposed": "waits to be tried",
    "begun": "is tried at {step}",
    "advanced": "is tried beyond {step}",
    "interrupted": "is to be tried anew from its start",
    "promoted": "came into production",
    "back": "went back at {step}",
}


def text(report: Mapping[str, Any]) -> str:
    """All of it, a line a fact."""
    return "\n".join([*_now(report), *_releases(report), *_asked(report), *_promises(report)])


def _now(report: Mapping[str, Any]) -> Iterator[str]:
    if report["serving"]:
        yield f"In production: {report['version']} ({report['serving'][:12]})."
    else:
        yield "In production: nothing yet."
    if (one := report["candidate"]) is not None:
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(one["time"]))
        why = f": {one['why'].rstrip('.')}" if one["why"] else ""
        yield f"Last candidate: {one['version']} {BECAME[one['outcome']].format(step=one['step'])}, {when}{why}."
    if report["silent_minutes"] is not None:
        yield f"The endpoint was heard {report['silent_minutes']} minutes ago."
    for one in report["alerts"]:
        yield f"Wrong ({one['severity']}): {one['sentence']}."
    if not report["alerts"]:
        yield "Nothing is wrong."


def _releases(report: Mapping[str, Any]) -> Iterator[str]:
    for digest, said in report["releases"].items():
        serves = ", serves" if said["serves"] else ""
        yield f"Release {said['version'] or 'of no version'} ({digest[:12]}{serves}), last 28 days and last day:"
        for category in ("health", "accuracy", "privacy"):
            for name, kept in said[category].items():
                if kept["month"]:
                    yield f"  {name:<17} {_share(kept['month'])}   {_share(kept['day'])}"
        if said["feedback"]:
            yield f"  {'liked':<17} {_share(said['feedback'])}"
        for one in said["drift"]:
            yield f"  {_shift(one)}"


def _asked(report: Mapping[str, Any]) -> Iterator[str]:
    for one in report["asked"]:
        yield f"Asked: {_shift(one)}"


def _promises(report: Mapping[str, Any]) -> Iterator[str]:
    yield "Promises:"
    for name, one in report["objectives"].items():
        left = "" if one["budget_left"] is None else f", {one['budget_left']:.0%} of the error budget left"
        yield f"  {name:<17} {one['target']:.7g} asked, {_share(one['kept'])}{left}"


def _share(one: Mapping[str, Any] | None) -> str:
    if one is None:
        return "no events"
    return f"{one['share']:.4f} [{one['low']:.4f}, {one['high']:.4f}] of {one['valid']:,}"


def _shift(one: Mapping[str, Any]) -> str:
    if one["distance"] is None:
        return f"{one['what']}: too few questions to tell ({one['questions']} and {one['reference']})"
    state = "has shifted" if one["shifted"] else "is as before"
    return f"{one['what']} {state} ({one['distance']:.2f}, {one['bound']:.2f} allowed)"
