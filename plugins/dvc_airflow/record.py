"""What night.json says: of each stage, and why nothing was deployed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dvc_airflow.project import Stage


def why_not(done: Mapping[str, Any], failed: str | None) -> str:
    """Why nothing was deployed tonight."""
    if not done:
        return "the night was not published"
    if not (done.get("said") or {}).get("released"):
        return "no release tonight"
    if done.get("refused"):
        return f"the push was refused: {done['refused']}"
    return f"{failed} failed" if failed else "no command deploys"


def money(stage: Stage, said: Mapping[str, Any], prices: Mapping[str, float]) -> float | None:
    """What a stage's time in its pool's slots costs; None for a pool without a price."""
    price = prices.get(stage.pool)
    return None if price is None else round(said["seconds"] / 3600 * stage.slots * price, 6)


def reported(said: Mapping[str, Any], cost: float | None) -> dict[str, Any]:
    """What night.json says of a stage."""
    kept = {key: said[key] for key in ("outcome", "seconds", "memory_bytes", "energy_joules", "attempts", "sentence")}
    kept |= {"money": cost}
    return kept | dict(said.get("report") or {}) | {"metrics": _metrics(said)}


def _metrics(said: Mapping[str, Any]) -> dict[str, Any]:
    """What the stage measured: its metrics files that are JSON objects."""
    found: dict[str, Any] = {}
    for path, content in (said.get("files") or {}).items():
        if path.endswith(".json"):
            found |= json.loads(content)
    return found


def metric(stages: Mapping[str, Any], place: str) -> Any:
    """The metric at 'stage.metric'; None where the stage did not get so far."""
    stage, _, name = place.rpartition(".")
    return ((stages.get(stage) or {}).get("metrics") or {}).get(name)
