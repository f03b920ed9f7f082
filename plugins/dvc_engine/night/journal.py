"""night.json: what a night was, for people and for what comes after it.

run, ended        the night's name, and when it ended, in seconds since the epoch
sentence          of the task that ended it, or the command after its release that failed; None where none did
commit            that it ran; and `selected`, the stages, where these are not all
stages            stage → outcome, began, seconds, cpu_seconds, memory_bytes, energy_joules, money, attempts, sentence,
                  metrics, and what its own outcome.json says beside these
account           of all stages together, as account.Account has it
published, new    the commit that it became, None for none; and whether that is another than the one before
refused           why that is not on the branch; "" where it is
changes           metrics that are not what they were, as changes.Change has them
released, deployed, why_not_deployed
                  what the project's commands say of that; and all else that they say and no other key is called
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from dvc_engine.night import account
from dvc_engine.pipeline.project import Project
from dvc_engine.stage.outcome import WELL, Night, numbers

NOTHING_DONE: Mapping[str, Any] = {"new": False, "refused": "", "changes": []}
KEYS = frozenset({"run", "ended", "sentence", "commit", "selected", "stages", "account", "published", *NOTHING_DONE})
KEYS |= {"released", "deployed", "why_not_deployed"}
MEASURED = ("began", "seconds", "cpu_seconds", "memory_bytes", "energy_joules")


def night(
    run: str,
    done: Mapping[str, Any],
    followed: Mapping[str, Mapping[str, Any] | None],
    failed: str | None,
    sentence: str | None,
    stages: Mapping[str, Any],
    headline: Mapping[str, str],
) -> dict[str, Any]:
    """night.json of a night, but for what `of_commit` says.

    Args:
        run: its name.
        done: what `publish` returned; empty where the night was not published.
        followed: command after the release → what it returned; None where it failed or is a success by somebody's hand.
        failed: of these the first that failed.
        sentence: of what ended it.
        stages: what is said of them.
        headline: key → 'stage.metric' that it shows.
    """
    told: dict[str, Any] = {"run": run, "sentence": sentence, "published": done.get("commit")}
    told |= {key: done.get(key, default) for key, default in NOTHING_DONE.items()}
    told |= {"stages": stages, "ended": round(time.time(), 3)}
    told |= {key: _metric(stages, where) for key, where in headline.items()}
    asked = {"released": None, "deployed": None, **dict(done.get("said", {}))}
    for one in followed.values():
        asked |= one or {}
    told |= {key: value for key, value in asked.items() if key not in told}  # not of what was measured
    why = told.get("why_not_deployed") or _why_not(done, failed)  # a command's own reason, where it gave one
    return told | {"why_not_deployed": None if told["deployed"] else why}


def of_commit(pinned: Night, known: Project, stages: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """What night.json says of what was pinned and of all stages together; and that as lines for people."""
    told: dict[str, Any] = {} if known.whole else {"selected": [one.name for one in known.selected]}
    told["commit"] = pinned.commit
    found = account.account(stages, {name: known.upstream(name) for name in known.stages})
    return (told | {"account": asdict(found)}, f"{found.line()}\n{account.table(stages)}") if found else (told, "")


def of_stage(said: Mapping[str, Any], money: float | None) -> dict[str, Any]:
    """What night.json says of a stage, from its result as JSON. A name here no stage's own outcome.json may take."""
    own = {"sentence": said["sentence"], **dict(said.get("report") or {})}
    measured = {key: said[key] for key in ("outcome", *MEASURED, "attempts")}
    return own | measured | {"money": money, "metrics": numbers(said.get("files") or {})}


def not_published(told: Mapping[str, Any]) -> str:
    """What ended a night without a commit: the first stage that did not end well, or the words of pin or publish."""
    what, said = "the night was not published", told["sentence"]
    if failed := next((one for one in told["stages"].items() if one[1]["outcome"] not in WELL), None):
        name, stage = failed
        first, *_ = stage["sentence"].splitlines() or [""]
        said = f"{name}: {stage['outcome']}: {first}"
    return f"{what}: {said}" if said else f"{what}; the first failed task says why"


def _why_not(done: Mapping[str, Any], failed: str | None) -> str:
    """Why nothing was deployed tonight."""
    if not done:
        return "the night was not published"
    if not (done.get("said") or {}).get("released"):
        return "no release tonight"
    if done.get("refused"):
        return f"the push was refused: {done['refused']}"
    return f"{failed} failed" if failed else "no command says that it deployed"


def _metric(stages: Mapping[str, Any], place: str) -> Any:
    """The metric at 'stage.metric'; None where the stage did not get so far."""
    stage, _, name = place.rpartition(".")
    return ((stages.get(stage) or {}).get("metrics") or {}).get(name)
