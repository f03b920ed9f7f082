"""Commands about keys of the endpoint."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from nightshift.place import Place

FIRST_KEY = "first.key"

app = typer.Typer(help="Keys of the endpoint.", no_args_is_help=True)


@app.command()
def create(
    owner: Annotated[str, typer.Option(help="Who it is for")] = "unnamed",
    scope: Annotated[list[str] | None, typer.Option(help="What it may do; infer:chat unless given")] = None,
    group: Annotated[list[str] | None, typer.Option(help="Whose documents it may see; public unless given")] = None,
    days: Annotated[int, typer.Option(help="How long it is valid, 1 to 90")] = 90,
) -> None:
    """Make a key and print it, once."""
    print(made(Place.here(), owner, tuple(scope or ["infer:chat"]), tuple(group or ["public"]), days))


@app.command(name="list")
def listed() -> None:
    """Show every key: id, owner, scopes, groups, and whether it is valid."""
    from nightshift.serve.keys import Keys

    now = time.time()
    for key in Keys(Place.here().home).listed():
        state = "revoked" if key.revoked else "expired" if key.expires <= now else "valid"
        print(f"{key.id}  {state:<8} {key.owner}  {','.join(key.scopes)}  {','.join(key.groups)}")


@app.command()
def revoke(identifier: Annotated[str, typer.Argument(help="Its id, as `keys list` shows it")]) -> None:
    """End a key at once."""
    from nightshift.serve.keys import Keys

    Keys(Place.here().home).revoke(identifier, time.time())


def made(place: Place, owner: str, scopes: tuple[str, ...], groups: tuple[str, ...], days: int) -> str:
    from nightshift.serve.keys import Keys

    place.home.mkdir(parents=True, exist_ok=True)
    place.home.chmod(0o700)
    return Keys(place.home).create(owner, scopes, groups, days, time.time())


def first_key(place: Place) -> Path:
    """The file of a key that is valid; a new one where there is none, or it ran out or was revoked."""
    from nightshift import commit
    from nightshift.serve.keys import Keys

    first = place.home / FIRST_KEY
    kept = first.read_text(encoding="utf-8", errors="replace").strip() if first.is_file() else ""
    if Keys(place.home).check(kept, time.time()) is None:
        commit.file(first, made(place, "first", ("infer:chat",), ("public",), 90) + "\n", 0o600)
    return first
