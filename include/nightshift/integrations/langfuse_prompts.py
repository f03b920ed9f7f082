"""Prompts in Git and in Langfuse, with Git as the truth.

`include/prompts/NAME.yaml` is `nightshift/NAME` there: a chat prompt whose system and user turns are the file's
`system` and `open`, with the rest, and the file itself, in its config. `{question}` here is `{{question}}` there. What
is served is `nightshift/served`: a version for each prompt that an environment's release has, under the environment's
name as its label (`prod` is also `production`, which Langfuse hands out by default). A label there changes nothing
here: a release carries its own prompt, and another one goes through the gate like everything else.

`push` makes Langfuse hold what Git has, and refuses where somebody edited a prompt there; `pull` writes such an edit
into the work tree, to be looked at, committed and judged; `diff` shows both ways.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nightshift import commit, registry
from nightshift.answer import Template
from nightshift.errors import DataRefused, NightshiftError, ParamsError, StorageError
from nightshift.integrations.langfuse import Server
from nightshift.past import Past

FOLDER = Path("include/prompts")
SERVED = "served"  # the prompt that carries the environments' labels
LABELS = {registry.PROD: ["prod", "production"]}  # other environments have one label, their name
_PROMPTS = "/api/public/v2/prompts"


@dataclass(frozen=True)
class Kept:
    """One version of a prompt in Langfuse."""

    name: str
    version: int
    labels: tuple[str, ...]
    template: dict[str, str]  # its texts by the keys of Template
    file: str | None  # the file that it was pushed from

    @property
    def digest(self) -> str | None:
        """sha256 of that file: what spans and releases call the prompt by."""
        return hashlib.sha256(self.file.encode()).hexdigest() if self.file is not None else None

    @property
    def edited(self) -> bool:
        """Whether somebody changed it there."""
        return self.file is None or self.template != _texts(self.file, self.name)


@dataclass(frozen=True)
class Environment:
    """An environment's release, and the prompt that it carries."""

    name: str
    release: registry.Release
    prompt: str  # name of its file
    file: str


@dataclass
class Prompts:
    """The prompts of one project of a server."""

    server: Server
    _known: dict[str, tuple[str, int] | None] = field(default_factory=dict)

    def latest(self, name: str) -> Kept | None:
        """The newest version; None where there is none. Raises StorageError, AccessDenied."""
        return self._get(name, label="latest")

    def by_digest(self, name: str, digest: str) -> Kept | None:
        """The newest version that was pushed from the file with this sha256."""
        newest = self.latest(name)
        versions = range(newest.version, 0, -1) if newest else ()
        found = (newest if one == (newest and newest.version) else self._get(name, version=one) for one in versions)
        return next((one for one in found if one and one.digest == digest), None)

    def linked(self, name: str, digest: str) -> tuple[str, int] | None:
        """Name and version there of the prompt that a release carries; looked for once a process, and never raises."""
        if digest not in self._known:
            try:
                found = self.by_digest(SERVED, digest) or self.by_digest(name, digest)
            except NightshiftError:  # away: the next trace asks again
                return None
            self._known[digest] = (found.name, found.version) if found else None
        return self._known[digest]

    def create(self, name: str, file: str, of: str, labels: list[str]) -> Kept:
        """A new version from the text of a prompt file. Raises StorageError."""
        texts = _texts(file, of)
        turns = [("system", texts["system"]), ("user", texts["open"])]
        body = {
            "name": _there(name),
            "type": "chat",
            "prompt": [{"role": role, "content": _braces(text)} for role, text in turns if text],
            "config": {"file": file, "closed": _braces(texts["closed"]), "section": _braces(texts["section"])},
            "labels": labels,
            "tags": ["nightshift"],
            "commitMessage": f"{of} {hashlib.sha256(file.encode()).hexdigest()[:12]}",
        }
        return self._read(self.server.ask("POST", _PROMPTS, json=body))

    def label(self, kept: Kept, labels: list[str]) -> None:
        """Move labels to a version; they leave the others of its name. Raises StorageError."""
        path = f"{_PROMPTS}/{quote(kept.name, safe='')}/versions/{kept.version}"
        self.server.ask("PATCH", path, json={"newLabels": labels})

    def _get(self, name: str, **which: str | int) -> Kept | None:
        asked = which | {"resolve": "false"}
        said = self.server.ask("GET", f"{_PROMPTS}/{quote(_there(name), safe='')}", params=asked)
        return self._read(said) if said else None

    def _read(self, said: Any) -> Kept:
        """The version that an answer holds. Raises StorageError where it holds none."""
        try:
            return _kept(said)
        except (KeyError, ValueError, TypeError, AttributeError):  # of another shape, wherever that differs
            what = "its answer is not of the form of a prompt"
            raise StorageError(what, f"{self.server.url}{_PROMPTS}", "look what answers there") from None


def push(prompts: Prompts, root: Path, force: bool = False) -> Iterator[str]:
    """Make Langfuse hold what Git has; yields a line for each prompt and environment. Raises DataRefused, StorageError.

    Nothing is sent where one was edited there, unless by `force`.
    """
    there = {path: prompts.latest(path.stem) for path in _files(root)}
    for path, kept in there.items():
        if kept and kept.edited and not force and kept.template != _texts(path.read_text("utf-8"), path.stem):
            what = f"somebody edited version {kept.version} of {kept.name} in Langfuse"
            raise DataRefused(what, str(path), "`nightshift langfuse pull` brings it here; push --force overwrites it")
    for path, kept in there.items():
        file = path.read_text("utf-8")
        if kept and kept.file == file and not kept.edited:
            yield f"{path.stem}: version {kept.version} is what Git has"
        else:
            yield f"{path.stem}: version {prompts.create(path.stem, file, path.stem, []).version} is made"
    for environment in environments(root):
        yield _labelled(prompts, environment)


def pull(prompts: Prompts, root: Path) -> Iterator[str]:
    """Write what was edited in Langfuse into the work tree; yields a line for each prompt.

    Raises DataRefused for a file with changes of its own, ParamsError for a prompt that is none.
    """
    for path in _files(root):
        kept = prompts.latest(path.stem)
        mine = _texts(path.read_text("utf-8"), path.stem)
        if kept is None or kept.template == mine:
            yield f"{path.stem}: nothing to bring"
            continue
        if not kept.edited:
            yield f"{path.stem}: Git is ahead of version {kept.version}; `nightshift langfuse push` sends it"
            continue
        _checked(kept)
        if _changed(root, path):
            do = "commit it, or `git restore` it, and pull again"
            raise DataRefused("it has changes that are not committed", str(path), do)
        commit.file(path, _merged(path.read_text("utf-8"), kept.template))
        yield f"{path.stem}: version {kept.version} is in the work tree; look at `git diff`, then commit it"


def diff(prompts: Prompts, root: Path) -> Iterator[str]:
    """What differs between Git and Langfuse, and where each environment's label stands."""
    for path in _files(root):
        kept = prompts.latest(path.stem)
        mine = _texts(path.read_text("utf-8"), path.stem)
        if kept is None:
            yield f"{path.stem}: not in Langfuse"
        elif kept.template == mine:
            yield f"{path.stem}: the same as version {kept.version}"
        else:
            side = f"langfuse:{kept.name}@{kept.version}{' (edited there)' if kept.edited else ''}"
            lines = difflib.unified_diff(
                _shown(mine), _shown(kept.template), str(path.relative_to(root)), side, "", "", 2
            )
            yield "\n".join(line.rstrip("\n") for line in lines)
    for one in environments(root):
        held = prompts.by_digest(SERVED, hashlib.sha256(one.file.encode()).hexdigest())
        right = held is not None and set(_labels(one.name)) <= set(held.labels)
        said = f"{one.name}: {one.release.version} has {one.prompt}"
        yield f"{said}, version {held.version} of {held.name}" if held and right else f"{said}; its label is not there"


def environments(root: Path) -> Iterator[Environment]:
    """Each environment that a release is assigned to, with that release's prompt.

    Raises RepositoryError, StorageError.
    """
    for name in registry.environments(root):
        release = registry.current(root, name)
        if release is not None:
            past = Past(root, release.commit)
            system = json.loads(past.read("release/system/system.json"))["name"]
            yield Environment(name, release, system, past.read("release/system/prompt.yaml").decode("utf-8"))


def _labelled(prompts: Prompts, one: Environment) -> str:
    """Put an environment's labels on the version that its release carries, which is made where it is not there."""
    labels = _labels(one.name)
    kept = prompts.by_digest(SERVED, hashlib.sha256(one.file.encode()).hexdigest())
    if kept is None:
        kept = prompts.create(SERVED, one.file, one.prompt, labels)
    elif not set(labels) <= set(kept.labels):
        prompts.label(kept, labels)
    return f"{one.name}: {one.release.version} has {one.prompt}, version {kept.version} of {kept.name}"


def _labels(environment: str) -> list[str]:
    return LABELS.get(environment, [environment])


def _files(root: Path) -> list[Path]:
    return sorted((root / FOLDER).glob("*.yaml"))


def _there(name: str) -> str:
    return f"nightshift/{name}"


def _braces(text: str) -> str:
    """`{question}` as Langfuse writes it."""
    return re.sub(r"\{(\w+)\}", r"{{\1}}", text)


def _unbraced(text: str) -> str:
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", r"{\1}", text)


def _texts(file: str, name: str) -> dict[str, str]:
    """The texts of a prompt file. Raises ParamsError."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        said = YAML(typ="safe").load(file)
    except YAMLError as error:
        raise ParamsError(f"not YAML: {error}", name, "mend the syntax there") from None
    return {key: str(said.get(key, "")) for key in Template.model_fields}


def _kept(said: dict[str, Any]) -> Kept:
    config = said.get("config") or {}
    turns = said["prompt"] if isinstance(said["prompt"], list) else [{"role": "user", "content": said["prompt"]}]
    by_role = {turn.get("role"): turn.get("content", "") for turn in turns}
    texts = {
        "system": by_role.get("system", ""),
        "closed": config.get("closed", ""),
        "open": by_role.get("user", ""),
        "section": config.get("section", ""),
    }
    template = {key: _unbraced(str(text)) for key, text in texts.items()}
    file = config.get("file")
    pushed = file if isinstance(file, str) else None  # who edits there may write anything
    return Kept(str(said["name"]), int(said["version"]), tuple(said.get("labels") or ()), template, pushed)


def _checked(kept: Kept) -> None:
    """Raises ParamsError where an edited prompt lacks what ours must hold."""
    from pydantic import ValidationError

    try:
        Template.model_validate(kept.template)
    except ValidationError as error:
        what = error.errors()[0]["msg"].removeprefix("Value error, ")
        where = f"{kept.name}, version {kept.version}, in Langfuse"
        raise ParamsError(what, where, "mend it there") from None


def _changed(root: Path, path: Path) -> bool:
    asked = ["git", "-C", str(root), "status", "--porcelain", "--", str(path)]
    return bool(subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip())


def _merged(file: str, template: dict[str, str]) -> str:
    """A prompt file with other texts in it, and its comments where they were."""
    from ruamel.yaml import YAML
    from ruamel.yaml.scalarstring import LiteralScalarString

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    held = yaml.load(file)
    for key, text in template.items():
        if str(held.get(key, "")) != text:
            held[key] = LiteralScalarString(text) if "\n" in text else text
    out = io.StringIO()
    yaml.dump(held, out)
    return out.getvalue()


def _shown(template: dict[str, str]) -> list[str]:
    return [line for key, text in template.items() for line in (f"{key}:", *(f"  {one}" for one in text.splitlines()))]
