"""Commands about the audit: whether it is whole, and what stands in it."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer

from nightshift.place import Place

MORE = ("environment", "to", "approvers", "scopes")  # of an event, beside who did what to what and why

app = typer.Typer(help="Who did what that a machine may not do by itself.", no_args_is_help=True)


@app.command()
def verify() -> None:
    """Check that no event was changed, taken out or put in; ends with its own exit code at the first that was."""
    from nightshift import anchor, registry

    place = Place.here()
    number = anchor.verify(place.home, place.root)
    print(f"{number} events, and none was changed.")
    if other := anchor.elsewhere(place.home, place.root):
        said = f"commit {other.commit[:12]} on branch {registry.BRANCH} names event {other.number}"
        print(f"The newest night was not of this home: {said} of the audit of key {other.key[:12]}.")


@app.command()
def show(
    last: Annotated[int, typer.Option(min=1, help="How many, from the end")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="The events themselves")] = False,
) -> None:
    """Show the last events."""
    from nightshift import audit

    for event in audit.events(Place.here().home, last):
        print(json.dumps(event, sort_keys=True, ensure_ascii=False) if as_json else _told(event))


def _told(event: dict[str, object]) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(float(str(event.get("time", 0)))))
    target = str(event.get("version") or event.get("target") or "")[:12]
    words = [when, event.get("actor"), event.get("action"), target]
    words += [f"{name} {event[name]}" for name in MORE if event.get(name)]
    return _printable("  ".join(str(one) for one in [*words, event.get("reason")] if one))


def _printable(text: str) -> str:
    """One line: who gave a reason must not end it, or write another one into a terminal."""
    return "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in text)
