"""The incumbent with tonight's index: documents reach users even on a night whose new model is refused.

Absent where there is no incumbent, or where its index is tonight's already.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from nightshift import commit, stage
from nightshift.stage import Metrics, Work


def run(incumbent: Path, index: Path, out: Path, work: Work) -> Metrics:
    """Put tonight's index into the incumbent's system."""
    reason = commit.why_absent(commit.check(incumbent))
    settings = {} if reason else json.loads((incumbent / "system.json").read_text(encoding="utf-8"))
    fresh = commit.digest(commit.check(index))
    if not reason and settings["digests"]["index"] == fresh:
        reason = "the incumbent's index is tonight's already"
    if reason:
        commit.absent(out, reason)
        return {"absent": reason}
    settings["digests"]["index"] = fresh
    with commit.folder(out) as draft:
        commit.copy(incumbent, draft)
        shutil.rmtree(draft / "index")
        commit.copy(index, draft / "index")
        (draft / "system.json").write_text(commit.dumps(settings), encoding="utf-8")
    return {"index": fresh}


if __name__ == "__main__":
    stage.main(run)
