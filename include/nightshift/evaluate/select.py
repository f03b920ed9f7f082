"""Pick one of tonight's systems by the validation items.

Its worth is the mean of choice accuracy (closed and open-book), of the token F1 of generated answers, and of the share
of planted facts that it finds in what it is shown; of equals the simpler stays (plain, prompt, lora), and where no
question was asked none is picked. The test side is not looked at: the gate asks it of what was picked here. Writes a
copy of the picked system, byte for byte, so that an equal choice stops what follows.
"""

from __future__ import annotations

import json
from pathlib import Path

from nightshift import commit, stage
from nightshift.errors import DataRefused
from nightshift.stage import Metrics, Work

ASKED = ("choice_accuracy.closed", "choice_accuracy.open", "token_f1.open")
READS = "reads.open"
SIMPLER = ("plain", "prompt", "lora")


def worth(summary: dict[str, dict[str, float]]) -> float | None:
    """Mean of what was measured; None where nothing was asked."""
    if summary.keys().isdisjoint(ASKED):
        return None
    found = [summary[name]["mean"] for name in (*ASKED, READS) if name in summary]
    return sum(found) / len(found)


def pick(worths: dict[str, float]) -> str:
    """The best; of equals the simpler."""
    return min(worths, key=lambda name: (-worths[name], SIMPLER.index(name) if name in SIMPLER else len(SIMPLER), name))


def run(out: Path, pairs: list[Path], work: Work) -> Metrics:
    """Pick among (evaluated/X, systems/X) pairs; X is the folder's name. Absent where all are.

    Raises DataRefused when a pair does not belong together.
    """
    worths: dict[str, float] = {}
    left_out: dict[str, str] = {}
    systems: dict[str, Path] = {}
    for evaluated, system in zip(pairs[::2], pairs[1::2], strict=True):
        if evaluated.name != system.name:
            do = "mend the command of `select` in dvc.yaml"
            raise DataRefused(f"{evaluated} and {system} are not of one system", "select", do)
        if reason := commit.why_absent(commit.check(evaluated)):
            left_out[system.name] = reason
            continue
        found = worth(json.loads((evaluated / "summary.json").read_text(encoding="utf-8")))
        if found is None:
            left_out[system.name] = "the validation side has no question to compare systems by"
            continue
        worths[system.name] = found
        systems[system.name] = commit.check(system)
    if not worths:
        reason = next(iter(left_out.values()), "no system was made")
        commit.absent(out, reason)
        return {"absent": reason}
    best = pick(worths)
    with commit.folder(out) as draft:
        commit.copy(systems[best], draft)
    return {"winner": best, "worth": worths, "left_out": left_out}


if __name__ == "__main__":
    stage.main(run)
