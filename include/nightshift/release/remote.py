"""Releases in a folder or under an S3 prefix: pushed there whole, and pulled from there by digest.

A release lies at LOCATION/DIGEST: its files below `release/`, its signature beside them. The manifest goes last, so
that what was pushed in part is not there at all. Who pulls believes the register (Git's tags) about the digest, the
digest about the manifest, the manifest about every file, and a key that is known here about who signed it: nothing that
the location says by itself.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from nightshift import commit, registry, signature, storage
from nightshift.errors import ReleaseInvalid, SourceError, StorageError
from nightshift.registry import Release
from nightshift.release.unpack import SIGNATURE, safe
from nightshift.store import Store


def push(store: Store, release: Release, location: str) -> str:
    """Copy a release that is trusted here to LOCATION/DIGEST; that address. Done twice it is done once."""
    folder, _ = store.trusted(release)
    there = f"{location.rstrip('/')}/{release.digest}"
    storage.upload(store.signature(release.digest), f"{there}/{SIGNATURE}")  # also of one that was signed again
    if _pushed(there) == release.digest:
        return there
    for name in sorted(commit.names(folder), key=lambda one: (one == commit.MANIFEST, one)):
        storage.upload(folder / name, f"{there}/release/{name}")
    return there


def pull(store: Store, release: Release, location: str | None) -> Path:
    """Bring a release to where the endpoint looks for it, from a location or from DVC's cache and remote.

    Raises ReleaseInvalid for one that is not what was released; StorageError, SourceError where it is not to be had.
    """
    if location is not None:
        _bring(store, release, f"{location.rstrip('/')}/{release.digest}")
    return store.trusted(release)[0]


def push_to_dvc(repository: Path, release: Release) -> None:
    """Copy a release from DVC's cache to the project's remote of today. Raises StorageError."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc_data.hashfile.hash_info import HashInfo

    at = str(repository)
    try:
        with Repo(at, rev=release.commit) as then, Repo(at) as repo:
            (out,) = then.find_outs_by_path(f"/{registry.OUT}")
            listed = json.loads(Path(repo.cache.local.oid_to_path(out.hash_info.value)).read_bytes())
            files = {HashInfo("md5", one["md5"]) for one in listed}
            failed = repo.cloud.push(files).failed or repo.cloud.push({out.hash_info}).failed  # the list goes last
    except (DvcException, OSError) as error:
        do = "`dvc remote add --default NAME URL`, or name a folder or an s3:// prefix"
        raise StorageError(f"it could not be pushed ({error})", release.version, do) from None
    if failed:
        do = "`dvc fetch` what the cache lacks, and look whether the remote answers"
        raise StorageError(f"{len(failed)} of its objects could not be pushed", release.version, do)


def _pushed(there: str) -> str | None:
    """The digest of what was pushed there whole."""
    try:
        said = storage.read(f"{there}/release/{commit.MANIFEST}")
    except SourceError:
        return None
    return commit.hashed(said)


def _bring(store: Store, release: Release, there: str) -> None:
    """Download a release and its signature, check both, and only then put them where they belong."""
    copy = store.copy(release.digest)
    draft = copy.with_name(f".{copy.name}.pulled")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        storage.download(f"{there}/{SIGNATURE}", draft / SIGNATURE)
        folder = draft / "release"
        storage.download(f"{there}/release/{commit.MANIFEST}", folder / commit.MANIFEST)
        if commit.digest(folder) != release.digest:
            raise _other(there, "it has another manifest")
        for name in json.loads((folder / commit.MANIFEST).read_text(encoding="utf-8")):
            if not safe(name):
                raise _other(there, f"{name!r} is no name of a file")
            storage.download(f"{there}/release/{name}", folder / name)
        if found := commit.damage(folder):
            raise _other(there, found[1])
        signature.verify(folder, draft / SIGNATURE, store.home, store.keys)
        commit.copied(draft / SIGNATURE, store.signature(release.digest))
        shutil.rmtree(copy, ignore_errors=True)
        folder.replace(copy)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _other(there: str, what: str) -> ReleaseInvalid:
    return ReleaseInvalid(f"what lies there is not what was released ({what})", there, "push it there again")
