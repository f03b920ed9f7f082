"""Commands about what stays up: Airflow and the endpoint."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from nightshift import audit, port
from nightshift.cli.keys import admin_key, first_key
from nightshift.place import Place


def up() -> None:
    """Start Airflow and the endpoint, and leave them running."""
    from nightshift import params
    from nightshift.serve import exposure
    from nightshift.serving import Listen

    place = Place.here()
    of_airflow, own = port.asked("NIGHTSHIFT_AIRFLOW_PORT", 8080), port.asked("NIGHTSHIFT_PORT", 8000)
    file = place.root / params.FILE
    params.check(file)  # also for an endpoint that is up: with another file it would not start again
    exposure.check(file, params.load(file, Listen).within(place.root))
    airflow, endpoint = place.airflow(), place.endpoint()
    endpoint.free(own)
    stayed = airflow.stays
    running = airflow.alive
    airflow.start(of_airflow, stay=True)
    try:
        endpoint.start(own)
    except BaseException:  # both are left running, or neither: an Airflow that a night started is still the night's
        if not running:
            airflow.stop()
        else:
            airflow.stay(stayed)
        raise
    first = first_key(place)
    print(f"airflow: {airflow.url}")
    print(f"endpoint: {endpoint.url}")
    print(f"admin: {endpoint.admin}")
    print(f"key: {first}", flush=True)
    operator = admin_key(place)
    print(f"Airflow's user is admin, its password in {airflow.passwords}.", file=sys.stderr)
    if why := endpoint.settled(operator.read_text(encoding="utf-8").strip()):
        print(f"The endpoint does not answer yet: {why}.", file=sys.stderr)


def down() -> None:
    """Stop what `up` started."""
    from nightshift import night

    place = Place.here()
    airflow = place.airflow()
    place.endpoint().stop()
    if run := night.under_way(airflow):
        print(f"The night {run} stops with Airflow; `make nightly` goes on with it.", file=sys.stderr)
    airflow.stop()


def serve(
    port_: Annotated[
        int | None,
        typer.Option(
            "--port", min=1, max=65_534, help="Port; NIGHTSHIFT_PORT or 8000 unless given; the admin's is the next"
        ),
    ] = None,
) -> None:
    """Serve the release in production, until stopped."""
    from nightshift.cli.traces import tracer
    from nightshift.serve.server import serve as run

    place = Place.here()
    own = port.asked("NIGHTSHIFT_PORT", 8000) if port_ is None else port_
    run(place.root, place.home, place.state, own, lambda: tracer(place))


def rollback(
    reason: Annotated[str, typer.Option(help="Why; kept in the audit")],
) -> None:
    """Take back what came last: end a candidate's trial, else put the release before into production again."""
    from nightshift import registry, rollouts

    place = Place.here()
    before = registry.current(place.root)
    made = rollouts.back(place.root, place.home, audit.actor(), reason, time.time())
    release = made.release
    stays = ", and no other is tried; once more goes back to the one before" if release == before else " again"
    print(f"{release.version} ({release.digest[:12]}) is in {made.environment}{stays}.")
    endpoint = place.endpoint()
    if endpoint.up() and not endpoint.serves(release.version, admin_key(place).read_text(encoding="utf-8").strip()):
        print("The endpoint does not answer by it yet; .nightshift/serve.log says why.", file=sys.stderr)
