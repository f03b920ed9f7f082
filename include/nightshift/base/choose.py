"""Choose a base model on evidence, and write the decision down.

Reads every base model with its assessment; writes a copy of the chosen one, byte for byte, so that an equal choice
stops what follows, and a decision record in Markdown. An answer of yes counts its weight, no counts against it,
unknown counts nothing; the share of choices answered rightly counts its own. Of equals the first name stays. A model
that cannot read a question with its sections is left out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nightshift import commit, stage
from nightshift.errors import DataRefused
from nightshift.sections import Choose, System
from nightshift.stage import Metrics, Work

QUESTIONS = {
    "transparent": "Transparent and interpretable?",
    "robust": "Tested on robust scenarios?",
    "accessible": "Training data accessible?",
    "unbiased": "Data free of bias?",
    "countered": "Did its makers counter bias?",
}
WORTH = {"yes": 1.0, "no": -1.0, "unknown": 0.0}


def worth(assessment: dict[str, Any], params: Choose) -> float:
    """The weighted sum of what is known."""
    answered = sum(getattr(params, name) * WORTH[assessment["answers"][name]["answer"]] for name in QUESTIONS)
    return float(answered + params.quality * (assessment["measured"]["accuracy"] or 0.0))


def record(
    assessments: dict[str, dict[str, Any]], worths: dict[str, float], left_out: dict[str, str], best: str
) -> str:
    """The decision as a page: context, evidence, decision, consequences."""
    names = sorted(assessments)
    lines = ["# Which base model", "", "## Context", ""]
    lines += ["Every system of the night stands on one base model. These were there:", ""]
    lines += [f"- {name}: digest `{assessments[name]['base'][:12]}`" for name in names]
    lines += [f"- {name} is absent: {reason}" for name, reason in sorted(left_out.items())]
    lines += ["", "## Evidence", "", f"| question | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for key, question in QUESTIONS.items():
        lines.append(f"| {question} | {' | '.join(_cell(assessments[name]['answers'][key]) for name in names)} |")
    for key, said in (
        ("accuracy", "Choices answered rightly"),
        ("robust_accuracy", "The same, asked otherwise"),
        ("bias_gap", "Bias gap, nats a word"),
    ):
        lines.append(f"| {said} | {' | '.join(str(assessments[name]['measured'][key]) for name in names)} |")
    lines.append(f"| **worth** | {' | '.join(f'{worths[name]:.3f}' for name in names)} |")
    lines += ["", "What no file says is unknown, and counts nothing.", "", "## Decision", "", f"**{best}**.", ""]
    lines += [
        "## Consequences",
        "",
        "Everything is adapted from it, and its licence and limits become the system's.",
        "",
    ]
    return "\n".join(lines)


def run(
    chosen: Path, decision: Path, pairs: list[Path], params: Choose, around: System, work: Work
) -> Metrics:  # fmt: skip
    """Choose among (models/base/X, models/assessed/X) pairs. Absent where all are. Raises DataRefused."""
    assessments: dict[str, dict[str, Any]] = {}
    left_out: dict[str, str] = {}
    bases = dict(zip((path.name for path in pairs[::2]), pairs[::2], strict=True))
    for base, assessed in zip(pairs[::2], pairs[1::2], strict=True):
        if base.name != assessed.name:
            do = "mend the command of `choose` in dvc.yaml"
            raise DataRefused(f"{base} and {assessed} are not of one model", "choose", do)
        if reason := commit.why_absent(commit.check(assessed)):
            left_out[base.name] = reason
            continue
        context = json.loads((commit.check(base) / "facts.json").read_text(encoding="utf-8"))["context"]
        if short := around.exceeds(context):
            left_out[base.name] = f"it {short}"
            continue
        assessments[base.name] = json.loads((assessed / "assessment.json").read_text(encoding="utf-8"))
    if not assessments:
        reason = next(iter(left_out.values()), "no base model is there")
        commit.absent(chosen, reason)
        commit.file(decision, f"# Which base model\n\nNone: {reason}.\n")
        return {"absent": reason}
    worths = {name: worth(one, params) for name, one in assessments.items()}
    best = min(worths, key=lambda name: (-worths[name], name))
    with commit.folder(chosen) as draft:
        commit.copy(bases[best], draft)
    commit.file(decision, record(assessments, worths, left_out, best))
    return {"chosen": best, "worth": worths, "left_out": left_out}


def _cell(answer: dict[str, Any]) -> str:
    seen = ", ".join(f"{one['file']} `{one['sha256'][:8]}`" for one in answer["evidence"])
    return f"{answer['answer']} ({seen})" if seen else str(answer["answer"])


if __name__ == "__main__":
    stage.main(run)
