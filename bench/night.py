"""What a night costs, by stage: a first one, one with nothing changed, one with one document changed.

    python bench/night.py [--profile laptop] [--out bench/night.json] [--keep FOLDER]

Runs three nights in a copy of this checkout with a HOME, cache and state of its own (packages are those of this
environment), over twenty small Markdown files beside the default sources, and writes seconds by stage with the machine
and the commit, and beside it what the first night said (night.txt). A night of another commit or machine is another
file: compare two of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.night.project import Project, make  # noqa: E402

PAGE = """# Pump {n}

Pump number {n} moves water from the well to the tank of house {n}.

## Oil

It is oiled in week {n}.
"""
SOURCE = "  items:\n    - {name: pages, kind: folder, path: sources/pages, licence: CC0-1.0}\n"


def night(project: Project, profile: str) -> dict[str, Any]:
    """One night: wall-clock seconds of `nightshift nightly`, Airflow's start included, and seconds by stage."""
    began = time.monotonic()
    ended = project.run("nightly", "--profile", profile, timeout=3600)
    seconds = time.monotonic() - began
    if ended.returncode != 0:
        sys.exit(ended.stdout + ended.stderr)
    stages = project.night()["stages"]
    return {
        "seconds": round(seconds, 1),
        "outcomes": {
            kind: sum(one["outcome"] == kind for one in stages.values())
            for kind in sorted({one["outcome"] for one in stages.values()})
        },
        "stages": {name: round(one["seconds"], 1) for name, one in stages.items() if one["outcome"] != "unchanged"},
    }


def machine() -> dict[str, Any]:
    """What the figures come from."""
    cpu = next(
        (line.split(": ")[1] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ""
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30),
        "python": platform.python_version(),
    }


def main() -> None:
    """Run the three nights and write the file."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--profile", default="laptop")
    asked.add_argument("--out", type=Path, default=ROOT / "bench" / "night.json")
    asked.add_argument("--keep", type=Path, help="run there and leave it, to look at afterwards")
    said = asked.parse_args()
    with nullcontext(said.keep) if said.keep else tempfile.TemporaryDirectory() as scratch:
        project = make(Path(scratch) / "project", Path(scratch) / "home")
        pages = project.folder / "sources" / "pages"
        pages.mkdir(parents=True)
        for n in range(20):
            (pages / f"{n}.md").write_text(PAGE.format(n=n))
        project.params("  items:\n", SOURCE)
        found = {"first": night(project, said.profile)}
        summary = project.run("night").stdout
        found["unchanged"] = night(project, said.profile)
        (pages / "7.md").write_text(PAGE.format(n=7).replace("oiled", "greased"))
        found["one document changed"] = night(project, said.profile)
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    about = {"commit": commit.stdout.strip(), "machine": machine(), "profile": said.profile}
    said.out.write_text(json.dumps(about | {"nights": found}, indent=2) + "\n", encoding="utf-8")
    said.out.with_suffix(".txt").write_text(summary, encoding="utf-8")
    for name, one in found.items():
        print(f"{name:<22} {one['seconds']:7.1f} s  {one['outcomes']}")


if __name__ == "__main__":
    main()
