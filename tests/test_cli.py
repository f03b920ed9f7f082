"""The command line says what is wrong in one sentence, with the code of its kind."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest

from nightshift import errors
from nightshift.cli import keys as commands
from nightshift.place import Place
from nightshift.serve.keys import Keys


def run(folder: Path, root: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(root / "include"), "NO_COLOR": "1"} | environ
    command = [sys.executable, "-m", "nightshift.cli", *words]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def project(root: Path, tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    for name in ("params.yaml", "requirements.txt"):
        (tmp_path / name).write_text((root / name).read_text())
    return tmp_path


def test_every_error_has_a_code_of_its_own_and_stands_in_the_table() -> None:
    kinds = errors.NightshiftError.__subclasses__()
    assert len({kind.code for kind in kinds}) == len(kinds)
    table = dict(re.findall(r"── (\w+)\s+(\d+)", errors.__doc__ or ""))
    assert table == {kind.__name__: str(kind.code) for kind in kinds}


def test_outside_a_project_it_says_where_to_go(root: Path, tmp_path: Path) -> None:
    ended = run(tmp_path, root, "check")
    assert (ended.returncode, ended.stdout) == (17, "")
    assert "this is not a Git repository; go into the project's folder." in ended.stderr
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert "there is no dvc.yaml" in run(tmp_path, root, "check").stderr


@pytest.mark.parametrize(
    ("text", "instead", "sentence"),
    [
        ("  threshold: 0.8", "  threshold: 8", "dedup.threshold: input should be less than or equal to 1, not 8"),
        ("  threshold: 0.8", "  treshold: 0.8", "dedup.treshold: no such key"),
        ("dedup:", "dedupe:", "unknown section 'dedupe'"),
        ("  salt: nightshift-1", "  salt: a\n  salt: b", "'salt' stands twice"),
        ("    lr: 2e-4", "    lr: no", "adapt.lora.lr: input should be a valid number, not 'no'"),
        ("kind: packages", "kind: package", "sources.items.0"),
        ('schedule: "0 2 * * *"', 'schedule: "every night"', "night.schedule: 'every night' is no cron expression"),
        ("timezone: UTC", "timezone: Mars/Phobos", "night.timezone: 'Mars/Phobos' is no IANA time zone"),
        ("  heads: 4", "  heads: 5", "pretrain.heads: 5 does not divide width, which is 256"),
    ],
)
def test_params_are_checked_with_file_and_line(
    project: Path, root: Path, text: str, instead: str, sentence: str
) -> None:
    path = project / "params.yaml"
    said = path.read_text()
    assert text in said
    path.write_text(said.replace(text, instead, 1))
    ended = run(project, root, "check")
    assert ended.returncode == 10
    assert sentence in ended.stderr
    assert re.search(r"params\.yaml:\d+: ", ended.stderr)
    assert len(ended.stderr.strip().splitlines()) == 1


def test_a_prompt_that_holds_a_secret_is_refused(project: Path, root: Path) -> None:
    prompts = project / "include" / "prompts"
    prompts.mkdir(parents=True, exist_ok=True)
    text = (root / "include" / "prompts" / "plain.yaml").read_text()
    key = "ns_local_abcdefghij_" + "A" * 43 + "_aaaaaa"
    (prompts / "mine.yaml").write_text(text.replace("Answer in one", f"The key is {key}. Answer in one"))
    ended = run(project, root, "check")
    assert ended.returncode == 10
    assert "mine.yaml: `system` holds a secret; take it out" in ended.stderr
    assert key not in ended.stderr


def test_the_traceback_is_for_those_who_ask(root: Path, tmp_path: Path) -> None:
    assert "Traceback" not in run(tmp_path, root, "check").stderr
    assert "Traceback" in run(tmp_path, root, "--debug", "check").stderr


def test_no_night_yet_is_said(project: Path, root: Path) -> None:
    ended = run(project, root, "night", "--json")
    assert (ended.returncode, ended.stdout) == (20, "")
    assert "type `make nightly`" in ended.stderr
    assert run(project, root, "pull").returncode == 17


def test_an_override_that_is_none_is_refused(project: Path, root: Path) -> None:
    ended = run(project, root, "nightly", "--set", "lr")
    assert ended.returncode == 10
    assert "write it as --set" in ended.stderr


def test_a_port_that_is_none_is_refused(project: Path, root: Path) -> None:
    ended = run(project, root, "up", NIGHTSHIFT_AIRFLOW_PORT="none")
    assert (ended.returncode, "NIGHTSHIFT_AIRFLOW_PORT" in ended.stderr) == (10, True)


def test_keys_are_made_listed_and_revoked(project: Path, root: Path) -> None:
    key = run(project, root, "keys", "create", "--owner", "ada").stdout.strip()
    assert key.startswith("ns_local_")
    listed = run(project, root, "keys", "list").stdout
    assert "valid    ada  infer:chat,infer:completions,infer:embeddings,models:read  public  1:never" in listed
    assert key.split("_", 3)[3][:43] not in listed
    assert run(project, root, "keys", "revoke", key.split("_")[2]).returncode == 0
    assert "revoked" in run(project, root, "keys", "list").stdout
    assert run(project, root, "keys", "revoke", "nobody").returncode == 22


def test_a_documents_side_can_be_asked(project: Path, root: Path) -> None:
    said = run(project, root, "side", f"numpy=={metadata.version('numpy')}/numpy/linalg/_linalg.py").stdout
    assert re.fullmatch(r"packages: (train|validation|test)\n", said)
    refused = run(project, root, "side", "README.md")
    assert (refused.returncode, refused.stdout) == (11, "")
    assert "README.md: no source of params.yaml holds this document" in refused.stderr


@pytest.mark.parametrize("words", [(), ("keys",)])
def test_without_words_it_shows_what_there_is(words: tuple[str, ...], project: Path, root: Path) -> None:
    said = run(project, root, *words)
    assert (said.returncode, said.stderr) == (2, "")
    assert ("create" if words else "nightly") in said.stdout
    assert "--help" in said.stdout


def test_the_audit_is_verified_and_shown(project: Path, root: Path) -> None:
    key = run(project, root, "keys", "create", "--owner", "ada").stdout.split("_")[2]
    assert " key.create " in run(project, root, "audit", "show").stdout
    said = run(project, root, "audit", "verify")
    assert said.returncode == 0 and said.stdout.endswith("events, and none was changed.\n")
    path = project / "var" / "audit.jsonl"
    path.write_text(path.read_text().replace(key, "a" * 10))
    refused = run(project, root, "audit", "verify")
    assert (refused.returncode, refused.stdout) == (22, "")
    assert "audit.jsonl:" in refused.stderr


def test_what_somebody_gave_as_a_reason_is_one_line_of_the_audit(project: Path, root: Path) -> None:
    from nightshift import audit

    reason = "fine\n2026-01-01 00:00:00  eve  promote  v9.9.9\x1b[2K"
    audit.write(project / "var", 1e9, actor="ann", action="rollback", target="a" * 64, to="b" * 64, reason=reason)
    said = run(project, root, "audit", "show", "--last", "1").stdout
    assert said == (
        f"2001-09-09 01:46:40  ann  rollback  {'a' * 12}  to {'b' * 64}  "
        "fine\\u000a2026-01-01 00:00:00  eve  promote  v9.9.9\\u001b[2K\n"
    )


def test_the_first_key_is_made_anew_once_it_is_not_valid(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(root / "params.yaml", tmp_path)
    place = Place(tmp_path, tmp_path / "state", tmp_path / "var", tmp_path)
    keys = Keys(place.home)
    first = commands.first_key(place).read_text()
    assert commands.first_key(place).read_text() == first
    keys.revoke(first.split("_")[2], time.time())
    second = commands.first_key(place).read_text()
    assert second != first
    later = time.time() + 91 * 86_400
    monkeypatch.setattr(commands.time, "time", lambda: later)
    third = commands.first_key(place)
    assert third.read_text() != second
    assert keys.check(third.read_text().strip(), later)
    assert third.stat().st_mode & 0o777 == 0o600
