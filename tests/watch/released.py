"""A project with two published releases, made by the real stages from a folder of documents."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from nightshift import commit, documents, params, registry, signature
from nightshift.data import dedup, discover, ingest, sanitise
from nightshift.release import release
from nightshift.sections import Dedup, Sanitise, Sources
from nightshift.sources import FolderSource
from nightshift.spans import FOLDER, Trace
from nightshift.stage import Work
from tests import command, models
from tests.conftest import ROOT

NOTES = FolderSource(name="notes", kind="folder", path="notes", licence="CC0-1.0")
SOURCES = Sources(items=[NOTES], max_file_bytes=100_000)
PUMP = "# Pump\n\nThe pump is oiled every {day} by the keeper of the mill, who is called {who}.\n"
VALVE = "# Valve\n\nThe valve of the old well was painted green in spring, and nobody remembers why.\n"
OUTS = ("data/sources.json", "data/raw", "data/clean", "data/unique", "release")


@dataclass
class Released:
    """The project, its home and its two versions, the older first."""

    folder: Path
    home: Path
    releases: list[registry.Release]

    def index(self, release: registry.Release, question: str) -> list[tuple[str, float]]:
        """Ids and scores that this release finds; its files are those in the work tree, which is the last one's."""
        from nightshift.answer import System

        assert release == self.releases[-1]
        return [(hit.id, hit.score) for hit in System.open(self.folder / "release" / "system").sections(question)]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command of `nightshift` in the project."""
        return command.run(self.folder, *words)

    @property
    def traces(self) -> Path:
        """Where the endpoint writes them."""
        return self.home / FOLDER


def git(folder: Path, *words: str) -> str:
    """Git, as somebody."""
    asked = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@t", *words]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def make(folder: Path) -> Released:
    """Two nights: in the second the day of the pump and its keeper have changed."""
    git(folder.parent, "init", "-q", str(folder))
    for name in ("params.yaml", "versions.json", "include/prompts/plain.yaml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    (folder / ".gitignore").write_text("/notes/\n/var/\n/.nightshift/\n/scratch/\n")
    (folder / "dvc.yaml").write_text("stages: {}\n")
    _dvc(folder, "init", "-q")
    home = folder / "var"
    releases = []
    for number, (day, who) in enumerate((("Monday", "anna@example.org"), ("Friday", "bert@example.org")), 1):
        (folder / "notes").mkdir(exist_ok=True)
        (folder / "notes" / "pump.md").write_text(PUMP.format(day=day, who=who))
        (folder / "notes" / "valve.md").write_text(VALVE)
        with chdir(folder):
            _night(folder)
        _dvc(folder, "add", "-q", *OUTS)
        git(folder, "add", "-A")
        git(folder, "commit", "-qm", f"manual-2026-11-2{number}T00-00-00: GO")
        digest = commit.digest(folder / "release")
        made = registry.Release(f"v0.{number}.0", git(folder, "rev-parse", "HEAD"), digest)
        signature.sign(folder / "release", home / "releases" / digest / "model.sig", home)
        registry.version(folder, made)
        registry.assign(folder, made)
        releases.append(made)
    return Released(folder, home, releases)


def noted(trace: Trace, released: Released, question: str) -> None:
    """Note on a trace what the gateway notes of a question to the newest release."""
    made = released.releases[-1]
    found = released.index(made, question)
    rows = documents_of(released.folder)
    trace.set(key="abcdefghij", release=made.digest, version=made.version, commit=made.commit, side="stable")
    with trace.step("retrieve") as step:
        step.set(sections=[one for one, _ in found], scores=[score for _, score in found], corpus=rows)
    with trace.step("prompt") as step:
        step.set(prompt=commit.sha256(released.folder / "include/prompts/plain.yaml"), prompt_name="plain")
    with trace.step("engine") as step:
        step.set(operation="chat", provider="nightshift", model="nightshift", input_tokens=90, output_tokens=8)
        step.set(finish=["stop"], first_token_s=0.05)
    with trace.step("scrub") as step:
        step.set(masked_out={"EMAIL": 1})
    trace.set(status=200, abstained=False)


def documents_of(folder: Path) -> str:
    """The corpus' digest, as facts.json has it."""
    return commit.sha256(folder / "data" / "unique" / "rows.parquet")


def _dvc(folder: Path, *words: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def _night(folder: Path) -> None:
    """The stages from the sources to a release, in the working folder."""
    scratch, data = folder / "scratch", folder / "data"
    with _fresh(scratch):
        work = Work("night", None, folder)
        (scratch / "lock").write_text("")
        discover.run(scratch / "lock", data / "sources.json", SOURCES, work)
        ingest.run(data / "sources.json", data / "raw", SOURCES, work)
        (scratch / "verdict.json").write_text("{}")
        file = ROOT / params.FILE
        sanitise.run(data / "raw", scratch / "verdict.json", data / "clean", params.load(file, Sanitise), work)
        dedup.run(data / "clean", data / "unique", params.load(file, Dedup), work)
        rows: list[dict[str, object]] = documents.read(data / "unique").to_dicts()
        models.system(scratch / "plain", ROOT, rows)
        commit.absent(scratch / "none", "nothing is in production")
        facts = {"tables": {"unique": {"digest": documents_of(folder), "rows": len(rows), "licences": {}}}}
        entry = {"candidate": "plain", "verdict": "GO", "reasons": ["Safe."]}
        papers = {
            "gate": {"verdict": "GO", "releases": "plain", "entries": [entry]},
            "recipe": {"recipe": {"tables": {}}, "judged_against": None, "trained_on": {}},
            "facts": facts,
        }
        for name, said in papers.items():
            commit.file(scratch / f"{name}.json", commit.dumps(said))
        with commit.folder(scratch / "catalogue") as draft:
            (draft / "croissant.json").write_text("{}")
        with commit.folder(scratch / "judged"):
            pass
        named = [scratch / one for one in ("gate.json", "recipe.json", "plain", "none", "plain")]
        named += [scratch / one for one in ("judged", "catalogue", "facts.json")]
        release.run(*named, folder / "release", work)
        assert pl.read_parquet(data / "unique" / "rows.parquet").height == 2


@contextmanager
def _fresh(folder: Path) -> Iterator[None]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    yield
    shutil.rmtree(folder)
