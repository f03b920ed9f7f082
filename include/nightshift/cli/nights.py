"""Commands about nights: run one, show it, bring it here, let out what it could not decide about."""

from __future__ import annotations

import json
import signal
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nightshift import port
from nightshift.errors import NightBroke, ParamsError
from nightshift.place import Place

if TYPE_CHECKING:
    from nightshift.airflow import Airflow
    from nightshift.night import Run


def nightly(
    profile: Annotated[str | None, typer.Option(help="Profile of params.yaml for this night")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="An override, section.key=value")] = None,
) -> None:
    """Run a night in Airflow, follow it, and say what came of it."""
    from nightshift import night, params, pipeline

    place = Place.here()
    file = place.root / params.FILE
    conf = _conf(profile, set_ or [])
    params.check(file)
    params.overridden(file, conf.get("profile"), {key: value for key, value in conf.items() if key != "profile"})
    pipeline.check(place.root)
    airflow = place.airflow()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: an Airflow of this night goes too
    try:
        with airflow.followed():
            run, state = _followed(place, airflow, conf)
    except KeyboardInterrupt:
        goes_on = "The night goes on; `make nightly` follows it again."
        stops = "Airflow is being stopped, and the night with it; `make nightly` goes on with it."
        print(f"\n{goes_on if airflow.needed else stops}", file=sys.stderr, flush=True)
        raise
    finally:
        airflow.leave()
    ended = night.of(place.nights, run.id)
    if state != "success":
        raise night.broken(ended)
    night.say("\n" + night.told(place.nights, place.home, ended, place.endpoint().up()))


def _followed(place: Place, airflow: Airflow, conf: dict[str, Any]) -> tuple[Run, str]:
    """A night from its start, or from where it is, to its end; and how that was."""
    from nightshift import night

    started_by_another = "Following the night that somebody else is starting here."
    airflow.start(port.asked("NIGHTSHIFT_AIRFLOW_PORT", 8080), lambda: night.say(started_by_another))
    run = night.begin(airflow, conf)
    night.say(f"{'Night' if run.started else 'Following the night under way,'} {run.id} at {airflow.url}")
    try:
        return run, night.follow(airflow, run, sys.stdout)
    except NightBroke:
        if not night.ended(place.nights, run.id):
            raise
        return run, "success"  # another who followed it saw its end first, and stopped Airflow


def show(as_json: Annotated[bool, typer.Option("--json", help="night.json itself")] = False) -> None:
    """Show the last night."""
    from nightshift import night

    place = Place.here()
    found = night.last(place.nights)
    print(
        json.dumps(found, indent=2) if as_json else night.told(place.nights, place.home, found, place.endpoint().up())
    )


def pull() -> None:
    """Bring the last night's dvc.lock and metrics into this tree, and its outs from the cache."""
    from nightshift import night

    night.pull(Place.here().root)


def approve(
    reason: Annotated[str, typer.Option(help="Why it may be let out; kept in the audit")],
) -> None:
    """Release the last night's candidate whose verdict is INCONCLUSIVE, and deploy it, or let the endpoint try it."""
    from nightshift import audit, night, params, registry
    from nightshift.deployment import Environments
    from nightshift.release.approve import approve as let_out

    place = Place.here()
    first = params.load(place.root / params.FILE, Environments).first
    made = let_out(place.root, place.home, place.state, registry.BRANCH, audit.actor(), reason, time.time(), first)
    night.approved(place.root, place.nights, made)
    print(made.told)


def _conf(profile: str | None, overrides: list[str]) -> dict[str, Any]:
    """The run's conf: only what was asked for. Raises ParamsError."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    typed: dict[str, Any] = {"profile": profile} if profile else {}
    for one in overrides:
        name, sign, value = one.partition("=")
        if not sign:
            raise ParamsError(f"{one!r} is not section.key=value", "--set", "write it as --set adapt.lora.lr=1e-3")
        try:
            typed[name] = YAML(typ="safe").load(value)
        except YAMLError:
            raise ParamsError(f"{value!r} is not YAML", f"--set {name}", "quote it as YAML asks for") from None
    return typed
