"""What a stage writes and does not declare: no other clone has it, and who lacks it is told who wrote it."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from dvc_engine.git import git, shown
from dvc_engine.pipeline import kept, wire
from dvc_engine.pipeline.lock import Entry
from dvc_engine.pipeline.project import LOCK, Project, Stage, inside, within
from dvc_engine.stage.outcome import Result

OF_TOOLS = {".dvc", ".venv", "__pycache__"}  # folders that nobody means to keep
MISSED = re.compile("no such file|not found|does not exist|cannot open", re.IGNORECASE)  # words of who lacks a file


def undeclared(clone: Path, project: Project, folder: str) -> list[str]:
    """What Git says that a stage wrote in its clone, of which dvc.yaml makes no out. Raises GitError.

    Args:
        folder: of the project in the repository.
    """
    asked = ["status", "--porcelain", "-z", "--untracked-files=all", "--ignored=traditional", "--no-renames"]
    outs, found = project.makers, []
    holding = {str(above) for out in outs for above in PurePosixPath(out).parents}
    for line in git(clone, *asked).split("\0"):
        at, changed = line[3:].rstrip("/"), line[:2].strip()
        if not at or "D" in changed:
            continue
        path = posixpath.relpath(at, folder) if folder else at
        # the `.dvc` file of an import is brought along
        dvcs = Path(path).name in (".gitignore", LOCK) or path.endswith(".dvc")
        own = dvcs or not OF_TOOLS.isdisjoint(Path(path).parts)
        known = path in holding or any(one in outs for one in within(path))
        if not own and not known:
            found.append(shown(path))
    return found


def made_by(sentence: str, stage: Stage, project: Project) -> str:
    """Which stage makes a file that this one names in its last words and does not read; "" for none.

    Of an out that is a folder it may read a part.
    """
    for made, name in project.makers.items():
        if name not in {*stage.above, stage.name} and _names(sentence, made):
            return f"\n{made} is made by {name}, and is not among these deps: add it"
        if name in stage.above and MISSED.search(sentence):
            for path in re.findall(rf"(?<![\w./-]){re.escape(made)}/[\w./-]*\w", sentence):
                if ".." not in path and not any(inside(path, dep) for dep in stage.deps):
                    what = f"of {made}, which {name} makes, it has what its deps name: add {path}"
                    return f"\n{what}, if {name} makes that"
    return ""


def note(root: Path, stage: str, entry: Entry, undeclared: Sequence[str]) -> None:
    """Keep what a stage wrote beside this entry, for nights in which it need not run; on this worker alone."""
    if undeclared:
        kept.write(kept.folder(root), _noted(stage, entry), undeclared)


def written_by(sentence: str, results: Callable[[], Mapping[str, Result]], root: Path) -> str:
    """Which stage wrote, undeclared, a file that another's last words miss; "" for none.

    Args:
        results: of all stages tonight; each may cost a request.
        root: where `note` has kept it of one that did not run.
    """
    for name, result in results().items() if MISSED.search(sentence) else ():
        undeclared = result.undeclared or kept.read(kept.folder(root), _noted(name, result.entry or {})) or ()
        if path := next((one for one in undeclared if _names(sentence, one)), None):
            what = f"{path} was written by stage {name}, which does not declare it"
            return f"\n{what}: add it to its outs, and to these deps"
    return ""


def _noted(stage: str, entry: Entry) -> str:
    return f"undeclared-{hashlib.sha256(f'{stage} {wire.dumps(entry)}'.encode()).hexdigest()[:24]}"


def _names(sentence: str, path: str) -> bool:
    """Whether words name a path; one of three letters stands in words that mean something else."""
    return len(path) > 3 and bool(re.search(rf"(?<![\w./-]){re.escape(path)}(?![\w-])", sentence))
