"""Commands about what is promised: how it stands, and the same as Prometheus' rules."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from nightshift import audit
from nightshift.place import Place

app = typer.Typer(help="What is promised, and how it stands.", no_args_is_help=True)
RULES = Path("deploy") / "prometheus" / "rules.yaml"


@app.command()
def show() -> None:
    """Show every objective, what is left of its error budget, and what may be deployed."""
    from nightshift import invariants, openslo, slo

    place = Place.here()
    now = int(time.time()) // 60
    stands, policy = slo.standing(place.home, place.root, now), slo.Policy.read(place.root)
    for name, one in openslo.promised(place.root).items():
        left = stands.budgets.get(name)
        told = "too few events" if left is None else f"{left:.0%} of its error budget left"
        print(f"{name:<17} {one.category:<9} {one.target:.7g}  {told if one.counted else 'see `nightshift report`'}")
    if stands.silent is not None:
        print(f"The endpoint was heard {stands.silent} minutes ago.")
    for name, what in invariants.broken(place.home, place.root).items():
        print(f"Broken: {name}: {what}")
    held = {
        change: said.reason for change in slo.CHANGES if not (said := slo.may_deploy(change, stands, policy)).allowed
    }
    for reason in dict.fromkeys(held.values()):
        print(f"Held back: {', '.join(change for change, why in held.items() if why == reason)}: {reason}.")


@app.command()
def rules() -> None:
    """Write the objectives as Prometheus' rules, into deploy/prometheus/rules.yaml."""
    from nightshift import commit, openslo
    from nightshift.watch import rules as made

    root = Place.here().root
    commit.file(root / RULES, made.written(openslo.promised(root).values()))
    print(RULES)


@app.command()
def calibrate(
    metrics: Annotated[Path, typer.Argument(help="/metrics of the admin listener, saved after a stretch of load")],
    before: Annotated[Path | None, typer.Option(help="The same, saved before it")] = None,
) -> None:
    """Propose thresholds of speed for this machine: 1.2 times the 95th percentile of what it measured."""
    from nightshift.watch.calibrate import proposed

    earlier = before.read_text(encoding="utf-8") if before else ""
    for one in proposed(metrics.read_text(encoding="utf-8"), earlier):
        from_ = f"95 % of {one.events:,} within {one.percentile:.3g} s"
        print(f'{one.objective.replace("_", "-")}.yaml: nightshift/threshold: "{one.threshold:.3g}"   # {from_}')


@app.command()
def lift(
    name: Annotated[str, typer.Argument(help="The broken invariant, as `slo show` names it")],
    postmortem: Annotated[str, typer.Option(help="Id of what was learned; kept in the audit")],
) -> None:
    """Take a broken invariant away, so that deployments go on."""
    from nightshift import invariants

    invariants.lift(Place.here().home, time.time(), audit.actor(), name, postmortem)
