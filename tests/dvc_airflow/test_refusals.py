"""What DVC refuses of a project is said in one sentence: file, line, what to do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from dvc.repo import Repo

from dvc_airflow.__main__ import main
from dvc_engine.pipeline import reading
from dvc_engine.pipeline.project import ProjectError
from tests.dvc_airflow.conftest import repository

ONE = "stages:\n  one: {cmd: x}\n"
VALUES = 'vars: [values.{kind}]\nstages:\n  one: {{cmd: "x ${{a}}"}}\n'
IMPORT = "frozen: true\ndeps:\n- path: {dep}\nouts:\n- path: {out}\n"
SAID: dict[str, tuple[Mapping[str, str], str]] = {
    "an out of two stages": (
        {"dvc.yaml": "stages:\n  one: {cmd: x, outs: [o]}\n  two:\n    cmd: y\n    outs: [o]\n"},
        "/dvc.yaml:5: o is an out here and at ROOT/dvc.yaml:2; take it out of one",
    ),
    "an out that is tracked": (
        {
            "dvc.yaml": "stages:\n  one: {cmd: x, outs: [o]}\n",
            "o.dvc": "outs:\n- md5: d41d8cd98f00b204e9800998ecf8427e\n  path: o\n",
        },
        "/o.dvc:1: o is an out here and at ROOT/dvc.yaml:2; take it out of one",
    ),
    "an out of two items": (
        {"dvc.yaml": "stages:\n  one:\n    foreach: [1, 2]\n    do:\n      cmd: x\n      outs: [o]\n"},
        "/dvc.yaml:6: o is an out of several items here; name the item in its path",
    ),
    "an out that a stage names twice": (
        {"dvc.yaml": "stages:\n  one:\n    cmd: x\n    outs: [o]\n    metrics: [{o: {cache: false}}]\n"},
        "/dvc.yaml:4: o is an out twice here; name it once, among outs, metrics or plots",
    ),
    "an out in another": (
        {"dvc.yaml": "stages:\n  one: {cmd: x, outs: [d]}\n  two: {cmd: y, outs: [d/o]}\n"},
        "/dvc.yaml:3: d/o lies in d, an out at ROOT/dvc.yaml:2; give it a place of its own",
    ),
    "a ring": (
        {"dvc.yaml": f"{ONE}  two: {{cmd: y, deps: [o], outs: [o]}}\n"},
        "/dvc.yaml:3: stages rest on each other in a ring: two → two; take one dep out",
    ),
    "a ring of two": (
        {"dvc.yaml": f"{ONE}  a: {{cmd: y, deps: [o], outs: [p]}}\n  b: {{cmd: y, deps: [p], outs: [o]}}\n"},
        "/dvc.yaml:3: stages rest on each other in a ring: a → b → a; take one dep out",
    ),
    "a ring of imports": (
        {name: IMPORT.format(dep=dep, out=out) for name, dep, out in (("x.dvc", "b", "a"), ("y.dvc", "a", "b"))},
        "/x.dvc:2: stages rest on each other in a ring: x.dvc → y.dvc → x.dvc; take one dep out",
    ),
    "an empty path": (
        {"dvc.yaml": f'{ONE}  two: {{cmd: y, deps: [""]}}\n'},
        "/dvc.yaml:3: stages.two: DVC cannot read it (AssertionError: as of an empty path, or of a matrix without "
        "items); mend it there",
    ),
    "a matrix without items": (
        {"sub/dvc.yaml": "stages:\n  two:\n    matrix: {}\n    cmd: y\n"},
        "/sub/dvc.yaml:2: stages.two: DVC cannot read it (AssertionError: as of an empty path, or of a matrix without "
        "items); mend it there",
    ),
    "a name with an @": (
        {"dvc.yaml": f"{ONE}  two@x: {{cmd: y}}\n"},
        "/dvc.yaml:3: stages.two@x: Stage 'two@x' not found inside 'dvc.yaml' file; call it otherwise: @ stands "
        "between a stage and an item of it",
    ),
    "an unknown key": (
        {"dvc.yaml": f"{ONE}  two:\n    cmd: ${{no.such}}\n"},
        "/dvc.yaml:4: stages.two.cmd: Could not find 'no.such'; write it in params.yaml, or in what `vars` names",
    ),
    "an unknown key of an item": (
        {"dvc.yaml": f"{ONE}  two:\n    foreach: [1.5]\n    do:\n      cmd: ${{no}}\n"},
        "/dvc.yaml:3: stages.two@1.5.cmd: Could not find 'no'; write it in params.yaml, or in what `vars` names",
    ),
    "what an item lacks": (
        {"dvc.yaml": f"{ONE}  two:\n    foreach: {{a: {{n: 1}}, b: {{}}}}\n    do:\n      cmd: ${{item.n}}\n"},
        "/dvc.yaml:6: stages.two@b.cmd: Could not find 'item.n'; write it in that item",
    ),
    "a variable of the shell's": (
        {"dvc.yaml": f"{ONE}  two:\n    cmd: x ${{REMOTE:-local}}\n"},
        "/dvc.yaml:4: stages.two.cmd: Could not find 'REMOTE:-local'; write it in params.yaml, or in what `vars` "
        "names; a variable of the shell's is \\${REMOTE:-local}",
    ),
    "items that are none": (
        {"dvc.yaml": f"{ONE}  two:\n    foreach: ${{a}}\n    do: {{cmd: x}}\n", "params.yaml": "a: b\n"},
        "/dvc.yaml:4: stages.two.foreach: expected list/dictionary, got str; mend it there",
    ),
    "no file of values of a stage": (
        {"dvc.yaml": f"{ONE}  two:\n    vars: [none.yaml]\n    cmd: x\n"},
        "/dvc.yaml:3: stages.two: 'none.yaml' does not exist; write and commit that file, or take it out of `vars`",
    ),
    "no file of values": (
        {"dvc.yaml": f"vars: [none.yaml]\n{ONE}"},
        "/dvc.yaml:1: vars: 'none.yaml' does not exist; write and commit that file, or take it out of `vars`",
    ),
    "TOML": (
        {"dvc.yaml": VALUES.format(kind="toml"), "values.toml": "a = 1\nb = =\n"},
        "/values.toml:2: not TOML: Invalid value; mend the syntax there",
    ),
    "TOML that ends": (
        {"dvc.yaml": VALUES.format(kind="toml"), "values.toml": "a = 1\nb = ["},
        "/values.toml:2: not TOML: Invalid value; mend the syntax there",
    ),
    "JSON": (
        {"dvc.yaml": VALUES.format(kind="json"), "values.json": "{\n"},
        "/values.json:2: not JSON: Expecting property name enclosed in double quotes; mend the syntax there",
    ),
    "Python": (
        {"dvc.yaml": VALUES.format(kind="py"), "values.py": "a = 1\nb = (\n"},
        "/values.py:2: not Python: '(' was never closed; mend the syntax there",
    ),
    "a key that DVC does not know": (
        {"dvc.yaml": f"{ONE}  two:\n    cmd: x\n    outs:\n    - o: {{cached: true}}\n"},
        "/dvc.yaml:6: stages.two.outs.0.o.cached: extra keys not allowed",
    ),
    "a key below": (
        {"s/dvc.yaml": "stages:\n  one:\n    cmd: a\n    out: [x]\n"},
        "/s/dvc.yaml:4: stages.one.out: extra keys not allowed; mend it there",
    ),
    "no YAML below": (
        {"s/dvc.yaml": "stages:\n  one: {cmd: a\n"},
        "/s/dvc.yaml:3: not YAML: did not find expected ',' or '}'; mend the syntax there",
    ),
    "a key that DVC had": (
        {"dvc.yaml": f"{ONE}  two:\n    cmd: x\n    live: {{dvclive: {{}}}}\n"},
        "/dvc.yaml:5: stages.two.live: extra keys not allowed; DVC has no such key since 3.0; take it out",
    ),
    "stages that are none": (
        {"dvc.yaml": "stages:\n"},
        "/dvc.yaml:1: stages: expected a dictionary; write a stage below it, or take it out",
    ),
    "data that is none": (
        {"x.dvc": "outs: 5\n"},
        "/x.dvc:1: outs: expected a list; write each on a line of its own, as `- name`, with a space",
    ),
    "a template without quotes": (
        {"dvc.yaml": "stages:\n  one:\n    cmd: x\n    outs: [data/${a}]\n"},
        "/dvc.yaml:4: not YAML: did not find expected ',' or ']'; write what has ${…} in quotes",
    ),
    "a stage in a file of its own, as before DVC 1": (
        {"old.dvc": "cmd: python old.py\ndeps:\n- path: old.py\nouts:\n- path: old.bin\n"},
        "/old.dvc:1: cmd: extra keys not allowed; a stage of DVC before 1.0 is written in dvc.yaml now",
    ),
    "a lock of DVC 1": (
        {"dvc.yaml": ONE, "dvc.lock": "one:\n  cmd: a\n"},
        "/dvc.lock:1: one: extra keys not allowed; to a lock file of DVC 1 add `schema: '2.0'` and `stages:` on",
    ),
    "a broken config": (
        {".dvc/config": "[core]\n    remote\n"},
        "/.dvc/config:2: config file error: ",
    ),
    "a value of the config and what was to be a comment": (
        {".dvc/config": "[core]\n    autostage = true ; when added\n"},
        "/.dvc/config:2: core.autostage: expected true or false for dictionary value; all that stands behind",
    ),
    "a key that the config had": (
        {".dvc/config": "[core]\n    analytics = false\n    cloud = aws\n"},
        "/.dvc/config:3: core.cloud: extra keys not allowed; take it out",
    ),
    "a key of this checkout's config alone": (
        {".dvc/config.local": "[core]\n    analytics = false\n    cloud = aws\n"},
        "/.dvc/config.local:3: core.cloud: extra keys not allowed; take it out",
    ),
    "a value of two configs": (
        {".dvc/config": "[core]\n    autostage = true\n", ".dvc/config.local": "[core]\n    Autostage = perhaps\n"},
        "/.dvc/config.local:2: core.autostage: expected true or false",
    ),
    "a section that the config had": (
        {".dvc/config": "[core]\n    analytics = false\n[gone]\n    a = 1\n"},
        "/.dvc/config:3: gone: extra keys not allowed; take it out",
    ),
    "a broken config of this checkout alone": (
        {".dvc/config.local": "[core]\n    remote\n"},
        "/.dvc/config.local:2: config file error: ",
    ),
    "a lock of a merge": (
        {"dvc.yaml": ONE, "dvc.lock": "schema: '2.0'\nstages:\n<<<<<<< ours\n  one:\n    cmd: x\n"},
        "/dvc.lock:4: not YAML: ",
    ),
    "a lock of a schema that is not known": (
        {"dvc.yaml": ONE, "dvc.lock": "schema: '9.0'\nstages: {}\n"},
        "/dvc.lock:1: schema: ",
    ),
    "values that are no YAML": (
        {"dvc.yaml": VALUES.format(kind="yaml"), "values.yaml": "a: 1\nb: [\n"},
        "/values.yaml:3: not YAML: ",
    ),
    "values of a folder that are no YAML": (
        {"s/dvc.yaml": f"vars: [deep/values.yaml]\n{ONE}", "s/deep/values.yaml": "a: 1\nb: [\n"},
        "/s/deep/values.yaml:3: not YAML: ",
    ),
    "a remote of another kind": (
        {".dvc/config": "[core]\n    remote = r\n['remote \"r\"']\n    url = ck://x\n"},
        "/.dvc/config: ",
    ),
}


@pytest.mark.parametrize("name", SAID)
@pytest.mark.parametrize("elsewhere", [True, False])
def test_it_is_one_sentence_with_its_place(
    name: str, elsewhere: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files, said = SAID[name]
    root = repository(tmp_path / "project", files)
    monkeypatch.chdir(tmp_path if elsewhere else root)
    capsys.readouterr()
    assert main(["graph", str(root)]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert told.err.startswith(f"{root}{said}".replace("ROOT", str(root)))


def test_a_lock_of_dvc_1_that_is_written_as_it_says_keeps_what_it_knows(tmp_path: Path) -> None:
    lock = f"one:\n  cmd: a\n  outs:\n  - path: o\n    md5: {'a' * 32}\n"
    root = repository(tmp_path, {"dvc.yaml": "stages:\n  one: {cmd: a, outs: [o]}\n", "dvc.lock": lock})
    with pytest.raises(ProjectError):
        reading.read(root)
    inner = "".join(f"  {line}\n" for line in lock.splitlines())
    (root / "dvc.lock").write_text(f"schema: '2.0'\nstages:\n{inner}")
    assert list(reading.read(root).stages) == ["one"]
    with Repo(str(root)) as repo:
        assert [out.hash_info.value for out in repo.index.outs] == ["a" * 32]


def test_what_gives_dvc_a_remote_of_another_kind_is_to_be_installed(tmp_path: Path) -> None:
    files, _ = SAID["a remote of another kind"]
    with pytest.raises(ProjectError, match=r"Unsupported URL type ck://.*; install what gives DVC ck://"):
        reading.read(repository(tmp_path, files))
