"""What DVC refuses of a project, in a sentence: file, line, what to do. DVC names files from where one stands."""

from __future__ import annotations

import ast
import json
import os
import re
import tomllib
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dvc_engine.pipeline.project import LOCK

MEND = "mend it there"
LEVELS = ("global", "system")  # of DVC's configuration, of all projects


def sentence(error: Exception, root: Path) -> str:
    """What is wrong where, and what to do, of what DVC raised while it read the project at `root`."""
    from dvc.config import ConfigError
    from dvc.exceptions import DvcException, OutputDuplicationError, OverlappingOutputPathsError
    from dvc.parsing import ResolveError
    from dvc.stage.exceptions import StageNotFound
    from dvc.utils.serialize import ParseError
    from dvc.utils.strictyaml import YAMLValidationError

    said, do = _said(error, root), _missing(error) or MEND
    match error:
        case YAMLValidationError():
            return _against_schema(error)
        case OutputDuplicationError():
            *others, one = sorted({_place(stage) for stage in error.stages})
            also, do = " and at ".join(["here", *others]), "take it out of one"
            if not others and len({stage.addressing for stage in error.stages}) == 1:
                also, do = "twice here", "name it once, among outs, metrics or plots"
            elif not others:
                also, do = "of several items here", "name the item in its path"
            return f"{one}: {_here(error.output, root)} is an out {also}; {do}"
        case OverlappingOutputPathsError():
            outer, inner = error.parent, error.overlapping_out
            what = f"{_here(str(inner), root)} lies in {_here(str(outer), root)}, an out at {_place(outer.stage)}"
            return f"{_place(inner.stage)}: {what}; give it a place of its own"
        case ResolveError() if found := re.fullmatch(r"failed to \w+ (stage )?'(.+?)' in '(.+?)': (.+)", said):
            stage, keys, name, why = found.groups()
            keys = f"stages.{keys}" if stage else keys
            if lacks := re.fullmatch(r"Could not find '(.+)'", why):
                do = _unfound(lacks[1])
            elif re.fullmatch(r"'.+' does not exist", why):
                do = "write and commit that file, or take it out of `vars`"
            return f"{root / name}:{line((root / name).read_bytes(), keys.split('.'))}: {keys}: {why}; {do}"
        case ParseError():
            return f"{_broken(Path(error.path).resolve(), said)}; mend the syntax there"
        case ConfigError():
            return _of_config(root, said, do)
        case StageNotFound() if "@" in error.name:
            do = "call it otherwise: @ stands between a stage and an item of it"
    place = _asked_for(error) or str(root)
    if isinstance(error, DvcException):
        return f"{place}: {said}; {do}"
    # of a malformed file DVC's own code raises whatever its readers happen to, and asserts without a word
    if not said and isinstance(error, AssertionError):
        said = "as of an empty path, or of a matrix without items"
    return f"{place}: DVC cannot read it ({': '.join(filter(None, [type(error).__name__, said]))}); {do}"


def _unfound(name: str) -> str:
    """What to do about `${name}`, which nothing says."""
    if name.partition(".")[0] in ("item", "key"):
        return "write it in that item"
    do = "write it in params.yaml, or in what `vars` names"
    return rf"{do}; a variable of the shell's is \${{{name}}}" if re.match(r"[A-Z_][A-Z0-9_]*\b", name) else do


def line(text: bytes, keys: Iterable[Any]) -> int:
    """The line, from 1, of what stands at these keys of a YAML text, or of the last of them that is there."""
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    place: Any = YAML().load(text)
    found = 0
    for key in keys:
        if isinstance(place, CommentedMap):
            place = place["do"] if key not in place and "do" in place else place
            key = key if key in place else str(key).partition("@")[0]  # of a stage that a template gives
            if key not in place:
                break
            found, place = place.lc.key(key)[0], place[key]
        elif isinstance(place, CommentedSeq) and isinstance(key, int) and key < len(place):
            found, place = place.lc.item(key)[0], place[key]
        else:
            break
    return found + 1


def _asked_for(error: Exception) -> str:
    """File, line and key of the stage that DVC was making when it raised, where its words name none; "" for none."""
    from dvc.stage.loader import StageLoader

    for frame, _ in traceback.walk_tb(error.__traceback__):
        loader, name = frame.f_locals.get("self"), frame.f_locals.get("name")
        if isinstance(loader, StageLoader) and name:
            file, name = Path(loader.dvcfile.path), str(name).removesuffix("@")
            return f"{file}:{line(file.read_bytes(), ['stages', name])}: stages.{name}"
    return ""


def _place(stage: Any) -> str:
    """File and line of a stage's outs, of DVC's."""
    keys = ["stages", stage.name, "outs"] if getattr(stage, "name", None) else ["outs"]
    return f"{stage.path}:{line(Path(stage.path).read_bytes(), keys)}"


def _said(error: Exception, root: Path) -> str:
    """What DVC said, on one line."""
    return _here(" ".join(str(error).split())[:600], root)


def _here(text: str, root: Path) -> str:
    """A text in which paths of the project stand from its folder."""
    return re.sub(rf"(?<![^\s'\"(]){re.escape(os.path.relpath(root.resolve()))}/", "", text)


def _of_config(root: Path, said: str, do: str) -> str:
    """What is wrong in DVC's configuration, the file, which DVC does not say, and the line where it shows."""
    from configobj import ConfigObj, ConfigObjError
    from dvc.config import Config

    own = root / ".dvc" / "config"
    files = (own.with_name("config.local"), own, *(Path(Config.get_dir(one), "config") for one in LEVELS))
    for file in files:
        try:
            ConfigObj(str(file))
        except (ConfigObjError, OSError, UnicodeError):
            at = re.search(r"at line (\d+)", said)
            return f"{file}{f':{at[1]}' if at else ''}: {said}; {do}"
    found = re.fullmatch(r"config file error: (extra keys .*|expected .*) @ data((?:\['[^']+'\])+)", said)
    if found is None:
        return f"{own}: {said}; {do}"
    keys = re.findall(r"\['([^']+)'\]", found[2])
    do = "take it out" if found[1].startswith("extra keys") else "all that stands behind the = is its value"
    place = re.compile(rf"\s*(\[['\"]?)?{re.escape(keys[-1])}(?(1)\b|\s*=)", re.IGNORECASE)
    for file in filter(os.path.isfile, files):  # the first that has it is what counts
        lines = enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if held := [number for number, one in lines if place.match(one)]:
            return f"{file}{f':{held[0]}' if len(held) == 1 else ''}: {'.'.join(keys)}: {found[1]}; {do}"
    return f"{own}: {'.'.join(keys)}: {found[1]}; {do}"


def _missing(error: Exception) -> str:
    """What to do where DVC lacks a package for a kind of URL; "" for other errors."""
    said = str(error)
    if found := re.search(r"requires '(dvc-\w+)' to be installed", said):
        return f"install {found[1]} where Airflow runs"
    if found := re.search(r"Unsupported URL type (\w+://)", said):
        return f"install what gives DVC {found[1]} where Airflow runs, or take it out"
    return ""


def _broken(file: Path, said: str) -> str:
    """File, line and what is wrong there, of a TOML, JSON or Python file that cannot be read; else what DVC said."""
    try:
        text = file.read_text(encoding="utf-8")
        match file.suffix:
            case ".toml":
                tomllib.loads(text)
            case ".py":
                ast.parse(text)
            case ".json":
                json.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r" \(at line (\d+), column \d+\)$", str(error))
        found = at[1] if at else len(text.splitlines())  # else "(at end of document)"
        return f"{file}:{found}: not TOML: {str(error).partition(' (at ')[0]}"
    except SyntaxError as error:
        return f"{file}:{error.lineno}: not Python: {error.msg}"
    except json.JSONDecodeError as error:
        return f"{file}:{error.lineno}: not JSON: {error.msg}"
    except (OSError, ValueError) as error:
        return f"{file}: it cannot be read ({error})"
    return f"{file}: {said}"


def _against_schema(error: Any) -> str:
    """What DVC's schema refuses, with the line; of files of its first versions what to do about them."""
    file, wrong = Path(error.path).resolve(), error.exc.errors[0]
    place = ".".join(map(str, wrong.path)) or "the file"
    do = MEND
    if file.name == LOCK and not re.search(r"^schema:", file.read_text(encoding="utf-8"), re.MULTILINE):
        do = "to a lock file of DVC 1 add `schema: '2.0'` and `stages:` on top, and two spaces before all other lines"
    elif file.name == LOCK:
        do = "take it from a commit before, or remove it (`git rm`): a run writes it anew"
    elif file.suffix == ".dvc" and place == "cmd":
        do = "a stage of DVC before 1.0 is written in dvc.yaml now (`dvc stage add`), and this file removed"
    elif file.suffix == ".dvc" and place.endswith(".metric"):
        do = "DVC 3 has no such key; take it out"
    elif place.endswith(".live"):
        do = "DVC has no such key since 3.0; take it out, and name what it writes among metrics or plots"
    elif place == "stages":
        do = "write a stage below it, or take it out"
    elif wrong.error_message == "expected a list":
        do = "write each on a line of its own, as `- name`, with a space"
    return f"{file}:{line(file.read_bytes(), wrong.path)}: {place}: {wrong.error_message}; {do}"
