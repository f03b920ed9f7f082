"""The pools that the tasks of dvc.yaml take their slots from: a task in a pool that is not there waits for ever.

So does one that takes more slots than its pool has. `cpu` has a slot a core that this process may use, and every pool
has room for the largest of its stages. What dvc.yaml writes as a template (`slots: ${...}`) is not seen here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from nightshift.errors import RepositoryError

CORES = "cpu"
AIRFLOWS_OWN = "default_pool"  # is there always, with 128 slots


def wanted(pipeline: Path, cores: int) -> dict[str, int]:
    """Pool → slots, for the stages of a dvc.yaml. Raises RepositoryError where it is not YAML."""
    try:
        said = YAML(typ="safe").load(pipeline.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError):
        raise RepositoryError("it is not YAML", str(pipeline), "`nightshift check` says where") from None
    slots = {CORES: cores}
    for name, size in _taken(said):
        slots[name] = max(slots.get(name, 1), size)
    slots.pop(AIRFLOWS_OWN, None)
    return slots


def cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """How many cores this process may use: those of its affinity, or the time that its container has, if that is less.

    `quota` is cgroup v2's: microseconds of processor time in a period of so many, or `max`.
    """
    mine = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):
        share, period = map(int, quota.read_text(encoding="ascii").split())
        return max(1, min(mine, share // period))
    return mine


def _taken(said: Any) -> Iterator[tuple[str, int]]:
    """(pool, slots) of every stage; of a foreach it stands under `do`."""
    for stage in _mapping(_mapping(said).get("stages")).values():
        about = _mapping(stage)
        about = _mapping(about.get("do")) or about
        asked = _mapping(_mapping(about.get("meta")).get("airflow"))
        slots = asked.get("slots")
        if "pool" in asked:
            yield str(asked["pool"]), slots if isinstance(slots, int) else 1


def _mapping(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}
