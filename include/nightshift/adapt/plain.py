"""The chosen base as it is: no weights, no examples; what every other adaptation is compared with."""

from __future__ import annotations

from pathlib import Path

from nightshift import commit, stage
from nightshift.stage import Metrics, Work


def run(chosen: Path, verdict: Path, out: Path, work: Work) -> Metrics:
    """Write that nothing is added. Absent where no base was chosen."""
    commit.check(verdict)
    if reason := commit.why_absent(chosen):
        commit.absent(out, reason)
        return {"absent": reason}
    with commit.folder(out) as draft:
        (draft / "adapted.json").write_text(commit.dumps({"kind": "plain"}), encoding="utf-8")
    return {"trained_parameters": 0}


if __name__ == "__main__":
    stage.main(run)
