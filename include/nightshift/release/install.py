"""Register the release of an unpacked bundle on a machine that has no other register.

The folder becomes a small project: a Git repository whose tags are the register, the release where the endpoint looks
for it, its signature, the keys. From then on everything works as elsewhere, with a second bundle as the next version. A
first bundle is believed about its key unless the fingerprint is named; later ones must be signed with a key that is
known here, and must not be older than what is here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

from nightshift import audit, commit, registry, signature
from nightshift.errors import NightshiftError, ReleaseInvalid, RepositoryError, SourceError, known, tell
from nightshift.registry import Release
from nightshift.release.unpack import FILES, SIGNATURE, START
from nightshift.store import Store

PARAMS, CAME = "params.yaml", "params.bundle.yaml"  # what holds here, and what a later bundle brought


def install(
    draft: Path, folder: Path, wanted: Release, key: str, who: str, now: float
) -> tuple[registry.Assignment, str]:
    """Check the unpacked release and put it into place, with the assignment last; and the key that signed it.

    Raises ReleaseInvalid, and SourceError for an environment in which it would not answer as it was judged.

    Args:
        draft: what was unpacked, below `folder`.
        wanted: version and digest as the bundle says them.
        key: the fingerprint that its key must have; "" for a key that is known here, or any where none is.
    """
    store = Store(folder, folder / "var", folder / ".nightshift")
    by = _trusted(draft, store, wanted, key)
    _complete(json.loads((draft / "versions.json").read_text(encoding="utf-8"))["evaluate"])
    _repository(folder)
    _newer(folder, wanted)
    event = {"actor": who, "action": "install", "target": wanted.digest, "version": wanted.version}
    audit.write(store.home, now, **event, environment=registry.PROD, reason="a bundle was unpacked")
    _place(draft, store, wanted.digest, by)
    release = registry.by_digest(folder, wanted.digest)
    if release is None:
        release = Release(wanted.version, _git(folder, "rev-parse", "HEAD"), wanted.digest)
        registry.version(folder, release)
    return registry.assign(folder, release), by


def _trusted(draft: Path, store: Store, wanted: Release, key: str) -> str:
    """The key that signed the release. Raises ReleaseInvalid unless it is the one that is named, and to be believed."""
    signature.installed()
    folder = draft / "release"
    if found := commit.damage(folder):
        raise ReleaseInvalid(found[1], wanted.version, "copy the bundle here again")
    if commit.digest(folder) != wanted.digest or not registry.TAG.fullmatch(registry.tag(wanted.version)):
        raise ReleaseInvalid("it is not the release that its bundle names", wanted.version, "ask who made it")
    known_here = {signature.fingerprint(one) for one in store.keys.glob("*.pem")}
    _merge(draft / "keys", store.keys)
    by = signature.verify(folder, draft / SIGNATURE, draft / "nowhere", draft / "keys")
    do = "compare it with `nightshift release key` where it was made, and name it with --key"
    if key and by != key:
        raise ReleaseInvalid(f"it is signed with key {by}, not with {key}", wanted.version, do)
    if known_here and not key and by not in known_here:
        raise ReleaseInvalid(f"it is signed with key {by}, which is not known here", wanted.version, do)
    return by


def _complete(judged_with: dict[str, str]) -> None:
    """Raises SourceError unless the libraries that compute an answer are those that the release was judged with."""
    for name, version in sorted(judged_with.items()):
        try:
            found = metadata.version(name).partition("+")[0]  # torch's build differs by platform
        except metadata.PackageNotFoundError:
            found = ""
        if found != version:
            what = f"{name} {found} is installed" if found else f"{name} is not installed"
            do = "unpack with a Python that has the lock's packages, or bundle their wheels"
            raise SourceError(f"{what}, and the release was judged with {version}", sys.executable, do)


def _merge(theirs: Path, ours: Path) -> None:
    """Put our keys beside theirs: what was replaced or revoked here stays so, whatever a bundle says."""
    for one in sorted(ours.glob("*.pem")):
        commit.copied(one, theirs / one.name)
    for one in sorted(ours.glob("*.json")):
        signed = set(json.loads(one.read_bytes())["signed"])
        if (theirs / one.name).is_file():
            signed &= set(json.loads((theirs / one.name).read_bytes())["signed"])
        commit.file(theirs / one.name, commit.dumps({"signed": sorted(signed)}))


def _repository(folder: Path) -> None:
    """Make the folder a Git repository with one commit, which its tags stand on."""
    try:
        if not (folder / ".git").is_dir():
            subprocess.run(["git", "init", "--quiet", str(folder)], check=True, capture_output=True)
        if subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "-q", "--verify", "HEAD"], capture_output=True
        ).returncode:
            who = ["-c", "user.name=Nightshift", "-c", "user.email=nightshift@localhost"]
            _git(folder, *who, "commit", "--quiet", "--allow-empty", "--message", "Unpack")
    except FileNotFoundError:
        raise RepositoryError("the command `git` is not there", "PATH", "install Git") from None


def _newer(folder: Path, wanted: Release) -> None:
    """Raises ReleaseInvalid for an older version than the newest that is here, or another of the same name."""
    for one in registry.releases(folder):
        if one.version == wanted.version and one.digest != wanted.digest:
            raise ReleaseInvalid("another release of this version is here", wanted.version, "ask who made it")
        if registry.numbers(one.version) > registry.numbers(wanted.version):
            do = f"`./start promote {wanted.version} --to prod --reason …` returns to one that was here"
            raise ReleaseInvalid(f"it is older than {one.version}, which is here", wanted.version, do)


def _place(draft: Path, store: Store, digest: str, key: str) -> None:
    """Move what was unpacked to where it belongs. Of its keys only the one that was believed is trusted from now on."""
    moved = {SIGNATURE: store.signature(digest), "release": store.copy(digest), "include": store.repository / "include"}
    moved |= {name: store.repository / name for name in FILES - {SIGNATURE}}
    for one in (draft / "keys").iterdir():
        if one.suffix == ".json" or one.stem == key[: signature.ID_DIGITS]:
            moved[f"keys/{one.name}"] = store.keys / one.name
    if moved[PARAMS].is_file():  # what is set here stays; what came along lies beside it
        moved[PARAMS] = store.repository / CAME
    for name, place in moved.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_dir():
            shutil.rmtree(place)
        (draft / name).replace(place)
    (store.repository / START).chmod(0o755)
    os.sync()  # before the assignment, once for all of it
    shutil.rmtree(draft)


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RepositoryError(
            f"Git cannot use this repository ({done.stderr.strip()})", str(folder), "do what Git says"
        )
    return done.stdout.strip()


def main() -> None:
    """Register what was unpacked; the words are unpack.py's. Exits with the error's code."""
    draft, folder, version, digest, key = sys.argv[1:]
    try:
        wanted = Release(version, "", digest)
        made, by = install(Path(draft), Path(folder), wanted, key, audit.actor(), time.time())
    except (NightshiftError, OSError) as error:
        if (found := known(error)) is None:
            raise
        sys.exit(tell("unpack", found))
    if (Path(folder) / CAME).is_file():
        print(f"unpack: params.yaml is kept as it is; the bundle's lies beside it as {CAME}.", file=sys.stderr)
    print(f"unpack: {made.release.version} is in {made.environment}, signed with key {by}.", file=sys.stderr)


if __name__ == "__main__":
    main()
