"""Commands about where and how a release is deployed: its pattern, its memory, and the window that it really reads."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from nightshift.place import Place

if TYPE_CHECKING:
    from pathlib import Path

    from nightshift.capacity import Need
    from nightshift.engine import Kind
    from nightshift.registry import Release
    from nightshift.store import Store

GIB = 1 << 30

Name = Annotated[str | None, typer.Argument(help="Version or digest; the release in prod unless given")]


def pattern(
    write: Annotated[bool, typer.Option("--write", help="Write the settings into params.yaml")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Every line as JSON")] = False,
) -> None:
    """Derive the deployment pattern and its configuration from the answers in params.yaml, with every reason."""
    from nightshift import params
    from nightshift.deployment import Deployment
    from nightshift.release import pattern as derived
    from nightshift.sections import Compute, System

    place = Place.here()
    file = place.root / params.FILE
    answers, compute = params.load(file, Deployment), params.load(file, Compute)
    fit = _engines_that_fit(place, answers.context) if compute.device == "cpu" else None
    table = derived.Table.read(place.root / derived.TABLE)
    lines = derived.derive(table, answers, compute.device, params.load(file, System).context, fit)
    values, by_hand = derived.settings(file, lines)
    if write:
        params.write(file, values, "pattern")
    if as_json:
        print(json.dumps([asdict(one) for one in lines], indent=2))
        return
    print(f"# {lines[0].value}: {lines[0].because}")
    for line in derived.overlay([one for one in lines if one.key in values]):
        print(line)
    print("\n# beside params.yaml")
    for one in by_hand[1:]:
        print(f"# {one.key}: {derived.flow(one.value)}  # {one.because}")


def plan(
    name: Name = None,
    users: Annotated[int, typer.Option(min=1, help="Users who are answered at the same time")] = 1,
    window: Annotated[
        int | None, typer.Option(min=1, help="Tokens of each; the release's context unless given")
    ] = None,
    slots: Annotated[int | None, typer.Option(min=1, help="Answers that one engine gives at a time")] = None,
    memory: Annotated[float | None, typer.Option(min=0.1, help="GiB to plan for; this machine's unless given")] = None,
) -> None:
    """Say how much memory users × window take, of what, and how many fit."""
    from nightshift import capacity, engine
    from nightshift.errors import DataRefused

    store, release = _release(name)
    kind = _kind(store.repository)
    slots = slots or engine.TRAITS[kind].slots
    shape = capacity.Shape.of(store.trusted(release)[0] / "system", kind)
    tokens = window or shape.context
    if tokens > shape.context:
        raise DataRefused(f"it reads {shape.context} tokens, not {tokens}", release.version, "plan a smaller window")
    needed = capacity.need(shape, users, tokens, slots)
    room = int(memory * GIB) if memory else capacity.memory()
    print(f"{release.version}: {users:,} at a time, {tokens:,} tokens each, {slots} to an engine")
    for what, size in _parts(needed, users, tokens, shape.cache_a_token):
        print(f"  {size / GIB:7.2f} GiB  {what}")
    fits = capacity.fit(shape, room, tokens, slots)
    verdict = "it fits" if fits >= users else "it does not fit"
    print(f"  {needed.total / GIB:7.2f} GiB  together, of {room / GIB:.2f}: {verdict}; {fits:,} at a time would")


def certify(
    name: Name = None,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens to read for it, at most")] = 60_000,
) -> None:
    """Find the window in which a release finds a planted fact, and keep it for /v1/models."""
    from nightshift import params
    from nightshift.release import certify as needle

    store, release = _release(name)
    said = needle.certify(store, store.repository / params.FILE, release, tokens)
    for one in said.tried:
        missed = f"; not at {', '.join(f'{depth} %' for depth in one.missed)}" if one.missed else ""
        print(f"  {one.window:7,} tokens: found at {one.found:.0%} of the depths{missed}")
    if not said.reached:
        print(f"  larger ones were not tried: {tokens:,} tokens did not reach")
    held = f"certified for {said.window:,}" if said.window else "certified for no window"
    print(f"{release.version} is {held} of {said.context:,} tokens.")


def _engines_that_fit(place: Place, window: int) -> int | None:
    """How many engines of the release in production fit here; None while there is none."""
    from nightshift import capacity, engine, registry
    from nightshift.store import Store

    found = registry.current(place.root)
    if found is None:
        return None
    folder, _ = Store(place.root, place.home, place.state).trusted(found)
    kind = _kind(place.root)
    shape = capacity.Shape.of(folder / "system", kind)
    return capacity.engines(shape, capacity.memory(), window, engine.TRAITS[kind].slots)


def _kind(repository: Path) -> Kind:
    """Which engine params.yaml names."""
    from nightshift import params
    from nightshift.serving import Engines

    return params.load(repository / params.FILE, Engines).kind


def _parts(needed: Need, users: int, window: int, cache: int) -> list[tuple[str, int]]:
    engines = f"{needed.engines:,} engine{'s' if needed.engines > 1 else ''}"
    return [
        (f"weights of {engines}", needed.weights),
        (f"keys and values: {users:,} × {window:,} tokens × {cache:,} bytes", needed.cache),
        ("a prompt that is read by each engine", needed.reading),
        (f"{engines} and a gateway with nothing to do", needed.overhead),
        ("the index", needed.index),
    ]


def _release(name: str | None) -> tuple[Store, Release]:
    """A release by name, or the one in production. Raises ReleaseInvalid."""
    from nightshift import registry
    from nightshift.errors import ReleaseInvalid
    from nightshift.store import Store

    place = Place.here()
    found = registry.find(place.root, name) if name else registry.current(place.root)
    if found is None:
        raise ReleaseInvalid("nothing is in prod yet", str(place.root), "`make nightly` makes a release")
    return Store(place.root, place.home, place.state), found
