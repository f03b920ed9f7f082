"""Commands about the morning after: how every release does, and what there is to be told."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Annotated, Any

import typer

from nightshift.place import Place


def report(as_json: Annotated[bool, typer.Option("--json", help="The report itself")] = False) -> None:
    """Show how every release does: health, accuracy, feedback, drift, and what is promised of nights."""
    from nightshift.watch import alerts, look, told
    from nightshift.watch.report import made

    place, now = Place.here(), int(time.time())
    found = made(look.seen(place.root, place.home, place.nights, alerts.first_look(place.home, now), now))
    print(json.dumps(found, indent=2) if as_json else told.text(found))


def watch(
    as_json: Annotated[bool, typer.Option("--json", help="What is new, as JSON")] = False,
    take: Annotated[
        bool, typer.Option("--take", help="For the scheduler: take the alerts that may start a night")
    ] = False,
    late: Annotated[str | None, typer.Option(help="For the scheduler: a night that is over its deadline")] = None,
) -> None:
    """Look once: write the report, and tell people what is new (params.yaml: notify)."""
    from nightshift.watch import look, nights

    place = Place.here()
    if late:
        nights.mark(place.nights, late)
        if not place.home.is_dir():
            print(f"Noted; the machine that has {place.home} tells of it at its next look.")
            return
    found = look.once(place.root, place.home, place.nights, os.environ, int(time.time()), take)
    print(json.dumps(found) if as_json else _said(found))
    for channel, why in found["untold"].items():
        print(f"nightshift: {channel}: {why}; it is tried again at the next look.", file=sys.stderr)


def notify() -> None:
    """Send a message over every channel of params.yaml that says that messages arrive."""
    from nightshift import notify as sender
    from nightshift import params
    from nightshift.errors import StorageError
    from nightshift.watching import Notify

    place = Place.here()
    settings = params.load(place.root / params.FILE, Notify)
    failed = sender.prove(settings, sender.Credentials.read(place.home, os.environ), int(time.time()))
    if failed:
        what = "; ".join(f"{channel}: {why}" for channel, why in failed.items())
        raise StorageError(what, "params.yaml: notify", "mend it there, or the credentials")
    print(f"Sent: {', '.join(sender.channels(settings))}.")


def _said(found: dict[str, Any]) -> str:
    new = [f"New: {one['id']} ({one['severity']}): {one['sentence']}." for one in found["opened"]]
    over = [f"Over: {one}." for one in found["resolved"]]
    on = [key for key in found["open"] if key not in {one["id"] for one in found["opened"]}]
    return "\n".join([*new, *over, *([f"Goes on: {', '.join(on)}."] if on else [])]) or "Nothing is wrong."
