"""Make a bundle of a release: one file that serves it on a machine without a network.

It holds the release with its signature, the public keys that are trusted here, the code and the values of this
checkout, the lock, and the command that starts it; with `wheels`, the packages of the lock too. Members are stored, in
order, without dates: the same release is the same bytes. What reads it is unpack.py.
"""

from __future__ import annotations

import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

from nightshift import commit, params, signature
from nightshift.errors import SourceError
from nightshift.registry import Release
from nightshift.release import unpack
from nightshift.release.unpack import Contents
from nightshift.store import Store

FIRST_DATE = (1980, 1, 1, 0, 0, 0)  # that a zip archive can hold
RUN = 0o755
START = """\
#!/bin/sh
# Serve the release that is assigned here, until stopped. The first start makes a key: var/first.key.
# With words, any other command: ./start release list
cd "$(dirname "$0")" || exit 1
set -a; . deploy/telemetry.env; set +a
export PYTHONPATH="$PWD/include" NIGHTSHIFT_STATE="$PWD/.nightshift" NIGHTSHIFT_HOME="$PWD/var"
if [ $# -gt 0 ]; then exec "$(cat interpreter)" -m nightshift.cli "$@"; fi
if [ ! -s var/first.key ]; then
    (umask 077; "$(cat interpreter)" -m nightshift.cli keys create --owner first > var/first.key) || exit
fi
exec "$(cat interpreter)" -m nightshift.cli serve
"""


def bundle(store: Store, release: Release, out: Path, wheels: Path | None = None) -> tuple[str, str]:
    """Write the bundle of a release; its sha256 and the fingerprint of the key that signed the release.

    Raises ReleaseInvalid, StorageError for a release that is not trusted here; SourceError without the code or wheels.
    """
    folder, key = store.trusted(release)
    members = dict(_members(store, release, folder, key, wheels))
    made = {unpack.START: START.encode(), params.FILE: _values(store.repository / params.FILE).encode()}
    files = {name: (path.stat().st_size, commit.sha256(path)) for name, path in members.items()}
    files |= {name: (len(content), commit.hashed(content)) for name, content in made.items()}
    said = Contents(release.version, release.digest, dict(sorted(files.items())))
    made |= {unpack.BOOT: unpack.boot().encode(), unpack.CONTENTS: commit.dumps(unpack.described(said)).encode()}
    with commit.replaced(out) as draft, zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED) as archive:
        for name in (unpack.BOOT, unpack.CONTENTS, *said.files):
            about = zipfile.ZipInfo(name, FIRST_DATE)
            about.external_attr = (0o100000 | (RUN if name == unpack.START else 0o644)) << 16
            if name in made:
                archive.writestr(about, made[name])
                continue
            about.file_size = members[name].stat().st_size  # zipfile asks for it before it writes a large member
            with members[name].open("rb") as source, archive.open(about, "w") as member:
                while chunk := source.read(commit.CHUNK):
                    member.write(chunk)
    return commit.sha256(out), key


def _members(store: Store, release: Release, folder: Path, key: str, wheels: Path | None) -> Iterator[tuple[str, Path]]:
    """Name in the archive and file of everything that is not made for it."""
    root = store.repository
    for name in commit.names(folder):
        yield f"release/{name}", folder / name
    yield unpack.SIGNATURE, store.signature(release.digest)
    for path in sorted(store.keys.glob("*.pem")) + sorted(store.keys.glob("*.json")):
        yield f"keys/{path.name}", path
    if signature.current(store.home) == key:
        yield f"keys/{key[: signature.ID_DIGITS]}.pem", store.home / signature.PUBLIC
    for name in _code(root):
        yield name, root / name
    if wheels is not None:
        found = sorted(wheels.glob("*.whl"))
        if not found:
            do = "`pip wheel --no-deps` the lock's packages into it, on a machine of the same kind"
            raise SourceError("no wheels are there", str(wheels), do)
        yield from ((f"wheels/{one.name}", one) for one in found)


def _values(file: Path) -> str:
    """params.yaml without what is this machine's alone: whom its messages and its traces go to. Raises ParamsError."""
    nobody = dict.fromkeys(("notify.email", "notify.webhook", "traces.otlp", "traces.langfuse"))
    return params.written(file, nobody, "release bundle")


def _code(root: Path) -> list[str]:
    """The files of this checkout that serving stands on, those that Git does not ignore."""
    wanted = ["include", *sorted(unpack.FILES - {unpack.SIGNATURE, unpack.START})]
    asked = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *wanted]
    listed = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split("\0")
    names = sorted({name for name in listed if name and (root / name).is_file()})
    if missing := sorted(set(wanted) - {"include", *names}):
        raise SourceError("it is not there, and a bundle needs it", str(root / missing[0]), "restore it from Git")
    return names
