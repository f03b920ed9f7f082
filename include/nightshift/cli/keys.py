"""Commands about keys of the endpoint."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nightshift import audit
from nightshift.place import Place

if TYPE_CHECKING:
    from nightshift.serve.keys import Keys

FIRST_KEY, ADMIN_KEY = "first.key", "admin.key"

app = typer.Typer(help="Keys of the endpoint.", no_args_is_help=True)


@app.command()
def create(
    owner: Annotated[str, typer.Option(help="Who it is for")] = "unnamed",
    scope: Annotated[list[str] | None, typer.Option(help="What it may do; asking of any kind unless given")] = None,
    group: Annotated[list[str] | None, typer.Option(help="Whose documents it may see; public unless given")] = None,
    days: Annotated[int, typer.Option(help="How long it is valid, 1 to 90")] = 90,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Requests at a time, if fewer than others")] = None,
    requests: Annotated[int | None, typer.Option(min=1, help="Requests a minute, if fewer than others")] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="Tokens a minute, if fewer than others")] = None,
) -> None:
    """Make a key and print it, once."""
    from nightshift import params
    from nightshift.serve.keys import ASKING
    from nightshift.serving import KeyLimits, Limits

    place = Place.here()
    asked = {"concurrency": concurrency, "requests_a_minute": requests, "tokens_a_minute": tokens}
    own = {name: value for name, value in asked.items() if value is not None}
    limits = None
    if own:
        limits = KeyLimits(**(params.load(place.root / params.FILE, Limits).key.model_dump() | own))
    scopes, groups = tuple(scope or ASKING), tuple(group or ["public"])
    print(_store(place).create(owner, scopes, groups, days, time.time(), limits=limits, actor=audit.actor()))


@app.command(name="list")
def listed() -> None:
    """Show every key: id, owner, scopes, groups, whether it is valid, and when each secret was used last."""
    now = time.time()
    for key in _store(Place.here()).listed():
        state = "revoked" if key.revoked else "expired" if key.expires <= now else "valid"
        live = [one for one in key.secrets if one.expires > now and not key.revoked]
        used = [f"{one.slot}:{_day(one.used)}" for one in live]
        print(f"{key.id}  {state:<8} {key.owner}  {','.join(key.scopes)}  {','.join(key.groups)}  {' '.join(used)}")


@app.command()
def rotate(
    identifier: Annotated[str, typer.Argument(help="Its id, as `keys list` shows it")],
    overlap: Annotated[float, typer.Option(help="Hours for which the secret before stays valid, up to 168")] = 24,
    days: Annotated[int, typer.Option(help="How long the new one is valid, 1 to 90")] = 90,
) -> None:
    """Give a key another secret and print it, once."""
    print(_store(Place.here()).rotate(identifier, overlap, days, time.time(), audit.actor()))


@app.command()
def revoke(
    identifier: Annotated[str, typer.Argument(help="Its id, as `keys list` shows it")],
    reason: Annotated[str, typer.Option(help="Why; kept in the audit")] = "",
) -> None:
    """End a key at once."""
    _store(Place.here()).revoke(identifier, time.time(), audit.actor(), reason)


@app.command()
def pepper() -> None:
    """Make another pepper: new secrets are hashed under it, and each that there is at its next use."""
    place = Place.here()
    version = _store(place).new_pepper(time.time(), audit.actor())
    print(f"{place.home / 'keys' / f'pepper-{version}'} is in use; keep the ones before until every key was used.")


def first_key(place: Place) -> Path:
    """The file of a key for asking that is valid; a new one where there is none, or it ran out or was revoked."""
    from nightshift.serve.keys import ASKING

    return _standing(place, FIRST_KEY, "first", ASKING)


def admin_key(place: Place) -> Path:
    """The same for a key of this machine's operator: who may write NIGHTSHIFT_HOME may have one."""
    from nightshift.serve.keys import ADMIN

    return _standing(place, ADMIN_KEY, "operator", ADMIN)


def _standing(place: Place, name: str, owner: str, scopes: tuple[str, ...]) -> Path:
    from nightshift import commit

    file = place.home / name
    kept = file.read_text(encoding="utf-8", errors="replace").strip() if file.is_file() else ""
    store = _store(place)
    found = store.check(kept, time.time())
    if found is None or not set(scopes) <= set(found.scopes):
        made = store.create(owner, scopes, ("public",), 90, time.time(), actor=audit.actor())
        commit.file(file, made + "\n", 0o600)
    return file


def _store(place: Place) -> Keys:
    from nightshift import params
    from nightshift.deployment import Environments
    from nightshift.serve.keys import Keys

    return Keys(place.home, params.load(place.root / params.FILE, Environments).prod.keys)


def _day(used: int | None) -> str:
    return "never" if used is None else time.strftime("%Y-%m-%d", time.gmtime(used))
