"""Where pretraining begins: the last promoted checkpoint of our own line, or nothing.

Reads the registry of the repository that it stands in. A pretrained model is promoted under a name of its own,
`pretrained`, and never by a night; as long as none is, this is absent and pretraining starts from random weights.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from nightshift import commit, stage
from nightshift.errors import ReleaseInvalid
from nightshift.stage import Metrics, Work

PROMOTED = "refs/tags/pretrained#prod#*"


def run(out: Path, work: Work) -> Metrics:
    """Look for a promoted checkpoint. Raises ReleaseInvalid for one: no way to begin from it is built."""
    asked = ["git", "for-each-ref", "--format=%(refname:strip=2)", PROMOTED]
    found = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
    if found:
        do = f"`git tag -d {found[-1]}` to start from random weights"
        raise ReleaseInvalid("pretraining cannot begin from a promoted checkpoint", found[-1], do)
    reason = "no pretrained model of our own has been promoted"
    commit.absent(out, reason)
    return {"absent": reason}


if __name__ == "__main__":
    stage.main(run)
