"""Commands about releases: which there are, where they go, who signed them."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nightshift.place import Place

if TYPE_CHECKING:
    from nightshift.release.promote import Person
    from nightshift.store import Store

Name = Annotated[str, typer.Argument(help="Version, or the first 8 or more digits of the digest")]
Reason = Annotated[str, typer.Option(help="Why; kept in the audit")]
KeyFile = Annotated[Path | None, typer.Option("--key", help="File with a key of yours: act as its owner")]

app = typer.Typer(help="Releases, by version or digest.", no_args_is_help=True)


@app.command(name="list")
def listed() -> None:
    """Show every release, newest first: version, digest, date, and where it is now (`canary`: tried)."""
    from nightshift import registry, rollouts

    place = Place.here()
    root, dates = place.root, registry.dates(place.root)
    now = {name: registry.current(root, name) for name in registry.environments(root)}
    now[registry.CANARY] = rollouts.standing(root, place.home).candidate
    for one in reversed(registry.releases(root)):
        where = ",".join(name for name, current in now.items() if current == one)
        day = datetime.fromtimestamp(dates[one.version], UTC).date()
        print(f"{one.version}  {one.digest}  {day}  {where}".rstrip())


@app.command()
def pull(
    name: Name,
    source: Annotated[str | None, typer.Option("--from", help="Folder or s3:// prefix; DVC's unless given")] = None,
) -> None:
    """Bring a release to where the endpoint looks for it, checked, and print the folder."""
    from nightshift import registry
    from nightshift.release import remote

    store = _store()
    print(remote.pull(store, registry.find(store.repository, name), source))


@app.command()
def push(
    name: Name,
    to: Annotated[str | None, typer.Option(help="Folder or s3:// prefix; DVC's remote unless given")] = None,
) -> None:
    """Copy a release elsewhere: to DVC's remote, or with its signature to a folder or an S3 prefix."""
    from nightshift import registry
    from nightshift.release import remote

    store = _store()
    release = registry.find(store.repository, name)
    if to is None:
        remote.push_to_dvc(store.repository, release)
    else:
        print(remote.push(store, release, to))


@app.command()
def verify(name: Name) -> None:
    """Check a release against the register, its manifest and its signature; say which key signed it."""
    from nightshift import registry

    store = _store()
    release = registry.find(store.repository, name)
    _, key = store.trusted(release)
    print(f"{release.version} ({release.digest}) is what was released, signed with key {key}.")


@app.command()
def bundle(
    name: Name,
    out: Annotated[Path, typer.Argument(help="The file to write; .pyz")],
    wheels: Annotated[Path | None, typer.Option(help="Folder with the wheels of the lock's packages")] = None,
) -> None:
    """Make one file of a release that serves it on a machine without a network: `python3.11 FILE FOLDER` there."""
    from nightshift import registry
    from nightshift.release import bundle as made

    store = _store()
    digest, signed = made.bundle(store, registry.find(store.repository, name), out, wheels)
    print(f"sha256: {digest}")
    print(f"key: {signed}")


@app.command()
def card(
    name: Name,
    whole: Annotated[bool, typer.Option("--whole", help="The one in the release, whatever is private")] = False,
    bill: Annotated[bool, typer.Option("--bill", help="The bill of materials instead")] = False,
) -> None:
    """Print a release's model card, without architecture and training where params.yaml calls these private."""
    from nightshift import params, registry
    from nightshift.deployment import Deployment
    from nightshift.release import shown

    store = _store()
    release = registry.find(store.repository, name)
    private = params.load(store.repository / params.FILE, Deployment).private_architecture and not whole
    print(shown.paper(store, release, "bom.json" if bill else "card.md", private), end="")


@app.command()
def sign(name: Name, reason: Reason, key: KeyFile = None) -> None:
    """Sign a release again with today's key: after its signature was lost, or its key was no longer trusted."""
    from nightshift import audit, registry, signature

    store = _store()
    release = registry.find(store.repository, name)
    folder = registry.fetch(store.repository, release, store.copy(release.digest))
    event = {"actor": _signer(store.home, key), "action": "sign", "target": release.digest, "version": release.version}
    audit.write(store.home, time.time(), **event, reason=reason)
    signature.sign(folder, store.signature(release.digest), store.home)


@app.command()
def key() -> None:
    """Put the public half of the signing key into keys/, and print its fingerprint."""
    from nightshift import signature

    store = _store()
    print(signature.publish(store.home, store.keys))


@app.command(name="rotate-key")
def rotate_key(
    reason: Reason,
    revoke: Annotated[bool, typer.Option("--revoke", help="It is in other hands: trust it for nothing")] = False,
    key: KeyFile = None,
) -> None:
    """Replace the signing key; what it signed until now stays valid, unless it is revoked. Commit keys/ afterwards."""
    from nightshift import audit, registry, signature

    store = _store()
    signed = [] if revoke else [one.digest for one in registry.releases(store.repository)]
    event = {"actor": _signer(store.home, key), "action": "rotate-key", "revoked": revoke}
    before = signature.current(store.home)
    audit.write(store.home, time.time(), **event, target=before or "none", reason=reason)
    print(signature.rotate(store.home, store.keys, signed)[1])


def promote(
    name: Name,
    to: Annotated[str, typer.Option(help="Environment, as environments.items of params.yaml names it")],
    reason: Reason,
    key: KeyFile = None,
) -> None:
    """Promote a release to an environment; where that asks for approvals, propose it, or approve what was proposed."""
    from nightshift import params
    from nightshift.deployment import Environments
    from nightshift.release.promote import promote as through

    store = _store()
    environments = params.load(store.repository / params.FILE, Environments)
    said = through(store, environments, name, to, person(store.home, key), reason, time.time())
    if said.made is None:
        print(f"{said.proposer} proposed it; {len(said.approvers)} of {said.needed} approved.")
    else:
        print(said.made.told)


def person(home: Path, key: Path | None) -> Person:
    """Who acts: the owner of a key, or else the user of the operating system. Raises AccessDenied for a bad key."""
    from nightshift import audit
    from nightshift.errors import AccessDenied
    from nightshift.release.promote import Person
    from nightshift.serve.keys import Keys

    if key is None:
        return Person(audit.actor())
    found = Keys(home).check(key.read_text(encoding="utf-8").strip(), time.time())
    if found is None:
        raise AccessDenied("this key is not valid", str(key), "`nightshift keys create --owner NAME` makes one")
    return Person(found.owner, frozenset(found.scopes))


def _signer(home: Path, key: Path | None) -> str:
    """Who signs, or replaces the key that does. Raises AccessDenied for one who may not let a release out."""
    from nightshift.errors import AccessDenied
    from nightshift.release.promote import APPROVED, RIGHTS

    who = person(home, key)
    if RIGHTS[APPROVED] not in who.scopes:
        raise AccessDenied(f"the key of {who.name} lacks the scope {RIGHTS[APPROVED]}", str(key), "use one that has it")
    return who.name


def _store() -> Store:
    from nightshift.store import Store

    place = Place.here()
    return Store(place.root, place.home, place.state)
