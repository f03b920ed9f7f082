"""Projects that nobody wrote: drawn by a seed from what DVC accepts, with names that are alike on purpose.

What a stage makes is a function of all that it reads, of few values, so that a change upstream may end on its way down.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.compat import StringIO

OUTSIDE = "OUTSIDE"  # stands for a folder beside the project
NAMES = ("fit", "data", "all", "prep", "x", "y.txt", "part-1", "a", "b", "log")
MAKE = '''\
"""make.py VALUES… -- READ… -- MADE…: a name that ends with / is a folder, with + it is written on in."""
import hashlib, json, os, sys
from pathlib import Path

values, read, made = [], [], []
parts = iter([values, read, made])
here = next(parts)
for word in sys.argv[1:]:
    if word == "--":
        here = next(parts)
    else:
        here.append(word)
held = hashlib.md5(" ".join(values).encode())
for name in read:
    place = Path(name)
    files = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
    for file in files:
        if file.name != ".gitignore" and not file.name.startswith("~"):
            held.update(str(file.relative_to(place) if place.is_dir() else "").encode() + file.read_bytes())
number = int(held.hexdigest(), 16)
for at, name in enumerate(made):
    said = str((number >> at) % 3)
    place = Path(name.rstrip("/+"))
    place.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith("/"):
        (place / "deep").mkdir(parents=True, exist_ok=True)
        (place / "one").write_text("1" + said)
        (place / "two").write_text("2")
        (place / "~left").write_text("4" + said)
        (place / "deep" / "three").write_text("3" + str((number >> 7) % 2))
    elif name.endswith("+"):
        with place.open("a") as out:
            out.write(said)
    elif name.endswith(".json"):
        place.write_text(json.dumps({"v": int(said), "of": {"w": 1}}))
    else:
        place.write_text(said)
'''
PARAMS = {"a": {"b": 1, "c": [1, 2]}, "n": 3, "names": ["a", "b"]}


@dataclass
class Drawn:
    """A project: its files, what `dvc add` tracks of them, and its stages.

    Args:
        outs: path → whether it is a folder, of what stages make and data is tracked as.
        stages: file → name → body.
        above: whether a stage reads a folder that outs of others lie in.
        imports: path → whether it comes from another DVC project; else from a URL.
        links: path → where it leads.
        kind: how DVC links with its cache; "" for its own way.
        own: a variable of dvc.yaml.
    """

    seed: int
    files: dict[str, str] = field(default_factory=dict)
    tracked: list[str] = field(default_factory=list)
    outs: dict[str, bool] = field(default_factory=dict)
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    above: bool = False
    params: dict[str, Any] = field(default_factory=lambda: json.loads(json.dumps(PARAMS)))
    imports: dict[str, bool] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    kind: str = ""
    own: int = 5

    @property
    def remote(self) -> bool:
        """Whether DVC has a remote."""
        return self.seed % 3 == 0

    @property
    def alone(self) -> bool:
        """Whether each stage finds an empty cache, as on a machine of its own."""
        return self.seed % 6 == 0

    def written(self) -> dict[str, str]:
        """Every file of it."""
        top: dict[str, Any] = {"vars": [{"own": {"t": self.own}}, "conf.json"], "params": ["conf.json"]}
        pipelines = {
            file: _yaml((top if file == "dvc.yaml" else {}) | {"stages": stages})
            for file, stages in self.stages.items()
            if stages
        }
        return self.files | pipelines | {"make.py": MAKE, "params.yaml": _yaml(self.params)}


def project(seed: int) -> Drawn:
    """The project of a seed."""
    draw = random.Random(seed)
    made = Drawn(seed)
    made.files = {"seed": "7", "src/lib": "1", "src/main": "2", "conf.json": '{"k": {"l": 1}}', "conf.toml": "t = 1\n"}
    if draw.random() < 0.6:
        made.files |= {"raw/one": "1", "raw/two": "2", "raw/deep/three": "3"}
        made.tracked.append("raw")
        made.outs["raw"] = True
    if draw.random() < 0.5:
        name = draw.choice(["table", "fit", "sub/table"])
        made.files[name] = "9"
        made.tracked.append(name)
        made.outs[name] = False
    if draw.random() < 0.15:
        name = draw.choice(["got", "fit", "sub/got"])
        if name not in made.outs:
            made.imports[name] = draw.random() < 0.4
            made.outs[name] = False
    if draw.random() < 0.2:
        made.links |= {"ln": "seed", "src/ln": "../seed", "lns": "src"}
    if draw.random() < 0.2:
        made.files[".dvcignore"] = draw.choice(["~*\n", "src/lib\n~*\n"])
    made.kind = draw.choice(["", "", "", "copy", "symlink", "hardlink"])
    for _ in range(draw.randint(2, 7)):
        _stage(draw, made)
    return made


def _stage(draw: random.Random, made: Drawn) -> None:
    file = "sub/dvc.yaml" if draw.random() < 0.2 else "dvc.yaml"
    stages = made.stages.setdefault(file, {})
    free = [name for name in NAMES if name not in stages]
    if not free:
        return
    name = draw.choice(free)
    folder = str(PurePosixPath(file).parent)
    body: dict[str, Any] = {}
    if file == "dvc.yaml" and draw.random() < 0.15:
        body["wdir"] = folder = "w"
    kind = draw.choices(["", "foreach", "matrix"], [7, 2, 1])[0]
    suffix = {"": "", "foreach": "-${item}", "matrix": "-${item.u}${item.v}"}[kind]
    read = _read(draw, made)
    outs = _outs(draw, made, suffix)
    if not outs and not read:
        return

    def at(path: str) -> str:
        if path.startswith(OUTSIDE):
            return path
        up = "../" if folder != "." else ""
        inside = path.removeprefix(f"{folder}/")
        return inside if up and inside != path else up + path

    values = [draw.choice(["${a.b}", "${own.t}", "${k.l}"])] if draw.random() < 0.3 and folder == "." else []
    values += ["${item}"] if kind == "foreach" else ["${item.u}"] if kind == "matrix" else []
    words = [*values, "--", *map(at, read), "--", *(at(path) + mark for path, (mark, _, _) in outs.items())]
    cmd = f"python {at('make.py')} {' '.join(words)}"
    body["cmd"] = [cmd, "true"] if draw.random() < 0.1 else cmd
    if read:
        body["deps"] = [at(path) for path in read]
    for path, (_, key, said) in outs.items():
        body.setdefault(key, []).append({at(path): said} if said else at(path))
    if draw.random() < 0.3:
        body["params"] = draw.choice([["a.b"], ["n", "a"], [{"conf.json": ["k.l"]}], [{"conf.toml": ["t"]}]])
        if folder != ".":
            body["params"] = [{at("params.yaml"): ["n"]}]
        if (numbers := [path for path in made.outs if path.endswith(".json")]) and draw.random() < 0.4:
            body["params"] = [{at(draw.choice(numbers)): draw.choice([["v"], ["of.w", "v"]])}]
    if draw.random() < 0.08:
        body["always_changed"] = True
    if kind == "foreach":
        body = {"foreach": draw.choice([["a", "b"], "${names}"] if folder == "." else [["a", "b"]]), "do": body}
    if kind == "matrix":
        body = {"matrix": {"u": ["a", "b"], "v": [1, 2]}, **body}
    stages[name] = body
    for path, (mark, _, _) in outs.items():
        for item in {"": [""], "foreach": ["-a", "-b"], "matrix": ["-a1", "-a2", "-b1", "-b2"]}[kind]:
            made.outs[path.replace(suffix, item) if suffix else path] = mark == "/"


def _read(draw: random.Random, made: Drawn) -> list[str]:
    known = ["seed", "src", "src/lib", "params.yaml", *made.links, f"{OUTSIDE}/far"]
    known += [*made.outs, *made.outs, *made.outs]
    known += [
        f"{path}/{part}" for path, folder in made.outs.items() if folder for part in ("one", "deep", "deep/three")
    ]
    above = [str(PurePosixPath(path).parent) for path in made.outs if "/" in path and not path.startswith("sub/")]
    found = list(dict.fromkeys(draw.choices(known + above, k=draw.randint(0, 3))))
    made.above = made.above or not set(above).isdisjoint(found)
    return [one for one in found if not any(one.startswith(f"{other}/") for other in found)]


def _outs(draw: random.Random, made: Drawn, suffix: str) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Path → its mark for make.py, its key, and what is said of it."""
    found: dict[str, tuple[str, str, dict[str, Any]]] = {}
    kinds: list[tuple[str, str, dict[str, Any], str]] = [
        ("", "outs", {}, ""), ("", "outs", {}, ""), ("/", "outs", {}, ""), ("", "outs", {"cache": False}, ""),
        ("/", "outs", {"cache": False}, ""), ("", "metrics", {"cache": False}, ".json"), ("", "metrics", {}, ".json"),
        ("", "plots", {"cache": False}, ".json"), ("+", "outs", {"persist": True}, ""), ("", "outs", {"desc": "d"}, ""),
    ]  # fmt: skip
    for _ in range(draw.choices([0, 1, 2, 3], [1, 5, 4, 2])[0]):
        mark, key, said, ending = draw.choice(kinds)
        folder = draw.choices(["", "o/", "o/p/", "sub/"], [6, 2, 1, 1])[0]
        path = f"{folder}{draw.choice(NAMES)}{suffix}{ending}"
        if path not in made.outs and path not in made.files:
            found[path] = (mark, key, dict(said))
    return found


def changed(made: Drawn, night: int) -> None:
    """Change it, as its people do between two nights."""
    draw = random.Random(f"{made.seed}-{night}")
    plain: dict[str, Any] = made.stages.get("dvc.yaml", {})

    def command() -> None:
        if names := [name for name, body in plain.items() if isinstance(body.get("cmd"), str) and "frozen" not in body]:
            plain[draw.choice(names)]["cmd"] += f" && echo {night}"

    def freeze() -> None:
        """One that DVC does not run all the same, as it does for another command, whatever its manual says."""
        still = [name for name, body in plain.items() if not {"foreach", "matrix", "always_changed"} & body.keys()]
        if names := [
            name for name in still if "${" not in str(plain[name]) and f"echo {night}" not in str(plain[name])
        ]:
            plain[draw.choice(names)]["frozen"] = True

    def write(name: str) -> Callable[[], None]:
        return lambda: made.files.update({name: f"{night}{made.files.get(name, '')}"})

    def param() -> None:
        made.params["a"]["b"] = night + 10

    def other_param() -> None:
        made.params["n"] = night + 10

    def json_param() -> None:
        made.files["conf.json"] = json.dumps({"k": {"l": night}, "new": 1})

    def more() -> None:
        _stage(draw, made)

    def variable() -> None:
        made.own += 1

    def single() -> list[str]:
        """Stages of dvc.yaml that are one."""
        return [name for name, body in plain.items() if not {"foreach", "matrix"} & body.keys()]

    def drop() -> None:
        """One whose outs nobody reads."""
        said = json.dumps([*made.stages.values()])
        for name in single():
            outs = [_path(one) for key in ("outs", "metrics", "plots") for one in plain[name].get(key, [])]
            if plain[name].get("wdir") is None and all(said.count(one) == 2 for one in outs):
                del plain[name]
                for one in outs:
                    made.outs.pop(one, None)
                return

    def rename() -> None:
        free = [name for name in NAMES if name not in plain]
        # one that goes on in its out finds it in a checkout, whatever it is called; in a clone it is another stage's
        if free and (names := [one for one in single() if not {"frozen", "persist"} & set(_words(plain[one]))]):
            plain[draw.choice(free)] = plain.pop(draw.choice(names))

    def widen() -> None:
        if names := [name for name in single() if plain[name].get("wdir") is None and "frozen" not in plain[name]]:
            deps = plain[draw.choice(names)].setdefault("deps", [])
            deps += [one for one in ["conf.toml"] if one not in deps]

    def turn() -> None:
        """What DVC kept of a stage it keeps no longer, or the other way."""
        if names := [name for name in single() if plain[name].get("outs")]:
            outs = plain[draw.choice(names)]["outs"]
            at = draw.randrange(len(outs))
            path, said = _path(outs[at]), outs[at]
            cached = isinstance(said, str) or said[path].get("cache", True)
            outs[at] = {path: {"cache": False}} if cached else path

    changes = [variable, drop, rename, widen, command, write("seed"), write("src/lib"), write("src/new")]
    changes += [param, other_param, json_param, more, *([] if made.alone else [turn])]
    changes += [write(f"{one}/two" if made.outs[one] else one) for one in made.tracked] + [freeze] * (night > 1)
    for change in draw.sample(changes, draw.choices([0, 1, 2], [1, 4, 3])[0]):
        change()


def _words(body: Any) -> Iterator[str]:
    """Every key in a stage."""
    if isinstance(body, dict):
        yield from body
    for one in body.values() if isinstance(body, dict) else body if isinstance(body, list) else []:
        yield from _words(one)


def _path(out: str | dict[str, Any]) -> str:
    """The path of an out, of which more may be said."""
    return out if isinstance(out, str) else next(iter(out))


def _yaml(document: Any) -> str:
    out, yaml = StringIO(), YAML(typ="safe")
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(document, out)
    return str(out.getvalue())
