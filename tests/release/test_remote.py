"""A release that is pushed and pulled is the same, checked by digest and signature; anything else is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from nightshift import commit, signature, storage
from nightshift.errors import ReleaseInvalid, SourceError, StorageError
from nightshift.release import remote
from nightshift.store import Store
from tests.release.project import Released


@pytest.fixture(params=["a folder", "S3"])
def location(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Somewhere to push to."""
    if request.param == "a folder":
        yield str(tmp_path / "pushed")
        return
    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    settings = {"ENDPOINT_URL": f"http://{host}:{port}", "ACCESS_KEY_ID": "t", "SECRET_ACCESS_KEY": "t"}
    for name, value in (settings | {"DEFAULT_REGION": "us-east-1"}).items():
        monkeypatch.setenv(f"AWS_{name}", value)
    storage._client.cache_clear()
    boto3.resource("s3").Bucket("releases").create()
    yield "s3://releases/nightshift"
    storage._client.cache_clear()
    server.stop()


@pytest.fixture
def elsewhere(project: Released, tmp_path: Path) -> Store:
    """Another machine: a clone with the public key, and neither cache nor signatures."""
    signature.publish(project.store.home, project.store.keys)
    clone = tmp_path / "clone"
    project.git("clone", "-q", str(project.folder), str(clone))
    shutil.copytree(project.store.keys, clone / "keys")
    return Store(clone, clone / "var", clone / ".nightshift")


def test_what_was_pushed_is_pulled_and_can_be_served(project: Released, elsewhere: Store, location: str) -> None:
    release = project.release("v0.2.0")
    with pytest.raises(StorageError, match="not to be had"):
        remote.pull(elsewhere, release, None)
    address = remote.push(project.store, release, location)
    assert address == f"{location}/{release.digest}"
    assert remote.push(project.store, release, location) == address
    folder = remote.pull(elsewhere, release, location)
    assert commit.digest(folder) == release.digest
    assert commit.names(folder) == commit.names(project.store.copy(release.digest))
    assert elsewhere.trusted(release)[0] == folder


def test_one_that_was_signed_again_is_pushed_with_its_new_signature(
    project: Released, elsewhere: Store, tmp_path: Path
) -> None:
    release = project.release("v0.2.0")
    remote.push(project.store, release, str(tmp_path / "pushed"))
    signature.rotate(project.store.home, project.store.keys, [])
    shutil.rmtree(elsewhere.keys)
    shutil.copytree(project.store.keys, elsewhere.keys)
    with pytest.raises(ReleaseInvalid, match="was replaced before"):
        remote.pull(elsewhere, release, str(tmp_path / "pushed"))
    signature.sign(project.store.copy(release.digest), project.store.signature(release.digest), project.store.home)
    remote.push(project.store, release, str(tmp_path / "pushed"))
    remote.pull(elsewhere, release, str(tmp_path / "pushed"))


def test_a_push_that_was_cut_off_is_not_there(project: Released, elsewhere: Store, tmp_path: Path) -> None:
    release = project.release("v0.2.0")
    remote.push(project.store, release, str(tmp_path / "pushed"))
    (tmp_path / "pushed" / release.digest / "release" / commit.MANIFEST).unlink()
    with pytest.raises(SourceError, match=r"manifest\.json: it is not there"):
        remote.pull(elsewhere, release, str(tmp_path / "pushed"))
    remote.push(project.store, release, str(tmp_path / "pushed"))
    remote.pull(elsewhere, release, str(tmp_path / "pushed"))


def _altered(there: Path) -> None:
    (there / "release" / "card.md").write_text("Better.")


def _short(there: Path) -> None:
    (there / "release" / "card.md").unlink()


def _rewritten(there: Path) -> None:
    _altered(there)
    manifest = there / "release" / commit.MANIFEST
    said = json.loads(manifest.read_text()) | {"card.md": commit.sha256(there / "release" / "card.md")}
    manifest.write_text(commit.dumps(said))


def _escaping(there: Path) -> None:
    manifest = there / "release" / commit.MANIFEST
    manifest.write_text(commit.dumps(json.loads(manifest.read_text()) | {"../../../../evil": "0" * 64}))


def _unsigned(there: Path) -> None:
    (there / "model.sig").unlink()


def _signed_by_a_stranger(there: Path) -> None:
    signature.sign(there / "release", there / "model.sig", there.parent / "stranger")


REFUSED = {
    "altered": (_altered, ReleaseInvalid, r"card\.md differs from the manifest"),
    "a file is missing": (_short, SourceError, r"card\.md: it is not there"),
    "another manifest": (_rewritten, ReleaseInvalid, "it has another manifest"),
    "a name that leads out": (_escaping, ReleaseInvalid, "it has another manifest"),
    "unsigned": (_unsigned, SourceError, r"model\.sig: it is not there"),
    "a stranger's signature": (_signed_by_a_stranger, ReleaseInvalid, "its signature does not hold"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_what_was_released_is_refused(
    name: str, project: Released, elsewhere: Store, tmp_path: Path
) -> None:
    harm, kind, said = REFUSED[name]
    release = project.release("v0.2.0")
    remote.push(project.store, release, str(tmp_path / "pushed"))
    harm(tmp_path / "pushed" / release.digest)
    with pytest.raises(kind, match=said):
        remote.pull(elsewhere, release, str(tmp_path / "pushed"))
    assert not elsewhere.copy(release.digest).exists()
    assert not elsewhere.signature(release.digest).exists()
    assert not list(tmp_path.rglob("evil"))


def test_a_release_is_pushed_to_dvcs_remote_whatever_lies_in_the_tree(project: Released, tmp_path: Path) -> None:
    release = project.release("v0.1.0")
    with pytest.raises(StorageError, match=r"`dvc remote add --default NAME URL`"):
        remote.push_to_dvc(project.folder, release)
    (project.folder / ".dvc" / "config").write_text(f"[core]\nremote = r\n['remote \"r\"']\nurl = {tmp_path / 'r'}\n")
    remote.push_to_dvc(project.folder, release)
    pushed = {one.read_bytes() for one in (tmp_path / "r").rglob("*") if one.is_file()}
    folder = project.store.trusted(release)[0]
    assert {(folder / name).read_bytes() for name in commit.names(folder)} <= pushed
