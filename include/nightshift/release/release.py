"""Assemble the release: the system that the gate lets out, with everything that proves it.

Reads the gate's decision, the recipe, tonight's systems, what they said to the judge and the facts about data; writes
one folder: system/, card.md, bom.json, gate.json, golden.json, lineage.json, facts.json, release.json. Where the gate
releases nothing the folder holds the first candidate whose verdict is INCONCLUSIVE, else the winner, without a version:
a person may look at it, and let an INCONCLUSIVE one out with a reason. Signature, time and run stand beside the release
when it is published, never in it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Set
from pathlib import Path
from typing import Any

from nightshift import commit, golden, stage
from nightshift.release import card
from nightshift.stage import Metrics, Work

UNDECIDED = "INCONCLUSIVE"


def held(decided: dict[str, Any], there: Set[str]) -> tuple[str, str]:
    """Which candidate of those that are there the release holds, and the verdict on it."""
    verdicts = {entry["candidate"]: entry["verdict"] for entry in decided["entries"]}
    open_ones = [name for name, verdict in verdicts.items() if verdict == UNDECIDED and name in there]
    name = decided["releases"] or (open_ones[0] if open_ones else "winner")
    return name, verdicts.get(name, decided["verdict"])


def trained_on(facts: dict[str, Any], role: str, made: dict[str, Any]) -> dict[str, str]:
    """Digests of the tables that its weights and examples come from; a refresh has those of the incumbent."""
    if role == "refresh":
        return dict(made["trained_on"])
    if facts["system"]["name"] == "plain" and facts["base"].get("origin") != "pretrained":
        return {}
    tables = facts["tables"]
    return {name: tables[name]["digest"] for name in ("balanced", "pairs") if name in tables}


def lineage(facts: dict[str, Any], trained: dict[str, str], judged_against: str | None) -> dict[str, Any]:
    """What the system was made from, by digest: tables, base, adaptation, prompt, index."""
    system = facts["system"]
    tables = {name: table["digest"] for name, table in facts["tables"].items()}
    return {
        "system": system["name"],
        "made_from": system["digests"],
        "trained_on": trained,
        "answers_from": {"index": system["digests"]["index"], "sections": tables.get("unique")},
        "judged_on": {name: digest for name, digest in tables.items() if name.startswith("items")},
        "judged_against": judged_against,
    }


def asked_again(judged: Path, digest: str) -> list[dict[str, Any]]:
    """What a system said to the judge, to be asked of it again by day; none for one that was not judged."""
    path = commit.check(judged) / f"{digest}.{golden.FILE}"
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else []


def run(
    gate: Path, recipe: Path, winner: Path, refresh: Path, plain: Path, judged: Path, catalogue: Path, data_facts: Path,
    out: Path, work: Work,
) -> Metrics:  # fmt: skip
    """Assemble tonight's release. Absent where there is no system to release."""
    decided = json.loads(commit.check(gate).read_text(encoding="utf-8"))
    folders = {"winner": winner, "refresh": refresh, "plain": plain}
    role, verdict = held(decided, {name for name, one in folders.items() if not commit.why_absent(one)})
    system = commit.check(folders[role])
    if reason := commit.why_absent(system):
        commit.absent(out, reason)
        return {"released": False, "absent": reason}
    made = json.loads(recipe.read_text(encoding="utf-8"))
    tables = json.loads(commit.check(data_facts).read_text(encoding="utf-8"))["tables"]
    facts = {
        "system": json.loads((system / "system.json").read_text(encoding="utf-8")),
        "base": json.loads((system / "base" / "facts.json").read_text(encoding="utf-8")),
        "tables": tables,
        "gate": decided,
    }
    trained = trained_on(facts, role, made)
    versions = {
        name: version
        for package in json.loads(Path("versions.json").read_text(encoding="utf-8")).values()
        for name, version in package.items()
    }
    with commit.folder(out) as draft:
        shutil.copytree(system, draft / "system", copy_function=shutil.copyfile)
        papers: dict[str, Any] = {
            "bom.json": card.bill(facts, versions),
            "gate.json": decided,
            golden.FILE: asked_again(judged, commit.digest(system)),
            "lineage.json": lineage(facts, trained, made["judged_against"]),
            "facts.json": {key: facts[key] for key in ("system", "base", "tables")},
        }
        for name, content in papers.items():
            (draft / name).write_text(commit.dumps(content), encoding="utf-8")
        (draft / "card.md").write_text(card.markdown(facts), encoding="utf-8")
        shutil.copyfile(commit.check(catalogue) / "croissant.json", draft / "croissant.json")
        release = {
            "files": {name: commit.sha256(draft / name) for name in commit.names(draft)},
            "system": facts["system"]["name"],
            "role": role,
            "training_rows": trained.get("balanced"),
            "recipe": made["recipe"],
            "judged_against": made["judged_against"],
        }
        (draft / "release.json").write_text(commit.dumps(release), encoding="utf-8")
    return {
        "released": decided["releases"] is not None,
        "role": role,
        "system": facts["system"]["name"],
        "verdict": decided["verdict"],
        "verdict_on_it": verdict,
        "digest": commit.digest(out),
    }


if __name__ == "__main__":
    stage.main(run)
