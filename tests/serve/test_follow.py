"""A release that is not what was released is named and never served, and what serves goes on serving."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from nightshift import commit, registry, signature
from nightshift.errors import ReleaseInvalid
from nightshift.registry import Release
from nightshift.serve.follow import Follower, Served
from tests.conftest import ROOT
from tests.dvc_airflow.test_objects import flip
from tests.night.project import unused

MAKE = """\
from pathlib import Path
from nightshift import commit
with commit.folder(Path("release")) as draft:
    (draft / "card.md").write_text("A release.")
"""


def git(folder: Path, *words: str) -> str:
    asked = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@t", *words]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose one stage makes a release, with that in production."""
    folder = tmp_path_factory.mktemp("released")
    git(folder, "init", "-q")
    (folder / "make.py").write_text(MAKE)
    (folder / "dvc.yaml").write_text("stages:\n  release: {cmd: python make.py, outs: [release]}\n")
    shutil.copyfile(ROOT / "params.yaml", folder / "params.yaml")
    env = os.environ | {"PYTHONPATH": str(ROOT / "include"), "DVC_NO_ANALYTICS": "1"}
    for words in (["init", "-q"], ["repro", "-q"]):
        subprocess.run([sys.executable, "-m", "dvc", *words], cwd=folder, env=env, check=True)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "A night")
    git(folder, "tag", "-a", "nightshift@v0.1.0", "-m", registry.message(commit.digest(folder / "release")))
    registry.assign(folder, registry.releases(folder)[0])
    return folder


@pytest.fixture
def repository(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "repository")
    return tmp_path / "repository"


def release(repository: Path) -> Release:
    found = registry.current(repository)
    assert found
    return found


def card(repository: Path) -> Path:
    """The cache's object of the release's card."""
    return next(one for one in (repository / ".dvc/cache").rglob("*") if one.is_file() and b"A rel" in one.read_bytes())


@pytest.mark.parametrize("damage", ["altered", "without a manifest", "empty"])
def test_a_copy_that_was_damaged_here_is_fetched_again(damage: str, repository: Path, tmp_path: Path) -> None:
    folder = registry.fetch(repository, release(repository), tmp_path / "copy")
    (folder / "card.md").write_text("Better.")
    for name in {"altered": (), "without a manifest": (commit.MANIFEST,)}.get(damage, ("card.md", commit.MANIFEST)):
        (folder / name).unlink()
    assert (registry.fetch(repository, release(repository), folder) / "card.md").read_text() == "A release."


def test_what_the_cache_holds_damaged_is_named_and_leaves_nothing(repository: Path, tmp_path: Path) -> None:
    held = card(repository)
    flip(held)
    with pytest.raises(ReleaseInvalid) as refused:
        registry.fetch(repository, release(repository), tmp_path / "copies" / "copy")
    assert str(refused.value) == (
        "v0.1.0: its files are not those that were released (card.md differs from the manifest); "
        f"remove {held}, run the night again and restart the endpoint, or assign another release."
    )
    assert list((tmp_path / "copies").iterdir()) == []


@pytest.mark.parametrize("said", ["{}", '{"digest": ""}', '{"digest": "../../home"}', '{"digest": 5', "[5]"])
def test_a_tag_whose_digest_is_none_is_not_a_release(said: str, repository: Path) -> None:
    git(repository, "tag", "-a", "nightshift@v0.2.0", "-m", said)
    git(repository, "tag", "-a", "nightshift@latest", "-m", registry.message("a" * 64))
    assert [one.version for one in registry.releases(repository)] == ["v0.1.0"]


@pytest.mark.parametrize(
    "signed", [b"", b"{}", b"[]", b"null", b"\xff", b'{"mediaType": "x", "dsseEnvelope": 5, "verificationMaterial": 5}']
)
def test_a_damaged_signature_or_key_is_refused(signed: bytes, repository: Path, tmp_path: Path) -> None:
    sig, home = tmp_path / "sig", tmp_path / "home"
    signature.sign(repository / "release", sig, home)
    whole = sig.read_bytes()
    sig.write_bytes(signed)
    with pytest.raises(ReleaseInvalid, match="signature does not hold"):
        signature.verify(repository / "release", sig, home, tmp_path / "keys")
    sig.write_bytes(whole)
    (home / signature.PUBLIC).write_bytes(signed)
    with pytest.raises(ReleaseInvalid, match="signature does not hold"):
        signature.verify(repository / "release", sig, home, tmp_path / "keys")


@pytest.mark.parametrize("harm", ["unsigned", "damaged", "no room for a copy"])
def test_what_serves_goes_on_serving(harm: str, repository: Path, tmp_path: Path) -> None:
    said: list[str] = []
    state = tmp_path / "state"
    if harm == "damaged":
        flip(card(repository))
    if harm == "no room for a copy":
        state.write_text("")  # where a folder would be made
    follower = Follower(repository, tmp_path / "home", state, 1, said.append)
    engine: Any = SimpleNamespace(alive=True)
    serving = follower.served = Served(Release("v0.0.9", "c" * 40, "d" * 64), None, engine)  # type: ignore[arg-type]
    asyncio.run(follower.look())
    asyncio.run(follower.look())
    assert follower.served is serving
    assert len(said) == 1
    assert said[0].startswith("v0.1.0 is not served: ")


@pytest.fixture
def serving(repository: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    flip(card(repository))
    env = os.environ | {"PYTHONPATH": str(ROOT / "include")}
    port = unused()
    command = [sys.executable, "-m", "nightshift.cli", "serve", "--port", str(port)]
    with subprocess.Popen(command, cwd=repository, env=env, stderr=subprocess.PIPE, text=True) as child:
        yield child, port
        child.terminate()


def test_the_command_says_it_and_lives(serving: tuple[subprocess.Popen[str], int]) -> None:
    child, port = serving
    assert child.stderr
    assert child.stderr.readline().startswith("serve: v0.1.0 is not served: v0.1.0: its files are not those that were")
    assert httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=10).is_success
    assert child.poll() is None
