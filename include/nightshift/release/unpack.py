"""Unpack a bundle: one file that holds a release, its signature, public keys, the code, the lock, and `start`.

A bundle is a zip archive that Python runs (`python3.11 nightshift-v0.1.0.pyz FOLDER`); this module is the first thing
that runs in it, so that it stands on the standard library alone. Nothing is extracted by name: the table of contents
(`bundle.json`) says every member with its size and sha256, its names must be ones that a bundle may hold, and each is
read as a stream into a file of ours. Links, folders, compressed members (a small file that becomes a large one), a name
twice, or one byte too many are refused before anything is put into place.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from nightshift import commit
from nightshift.errors import NightshiftError, ReleaseInvalid, SourceError, full, known, no_room, tell

CONTENTS, BOOT, SIGNATURE, START = "bundle.json", "__main__.py", "model.sig", "start"
FILES = {
    SIGNATURE, START, "params.yaml", "dvc.yaml", "versions.json", "requirements.txt", "deploy/telemetry.env",
    ".gitignore",
}  # fmt: skip
FOLDERS = ("include", "release", "keys", "wheels")
# what zipfile raises for an archive that was cut, flipped, encrypted or packed by other means
DAMAGED = (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError, struct.error)
LARGEST_TABLE = 64 << 20  # bytes
INTERPRETER = "interpreter"  # the file that says which Python `start` runs


@dataclass(frozen=True)
class Contents:
    """What a bundle says of itself.

    Args:
        version: of the release.
        digest: of the release.
        files: name → (bytes, sha256) of every other member.
    """

    version: str
    digest: str
    files: dict[str, tuple[int, str]]


def safe(name: str) -> bool:
    """Whether a name that others wrote may be that of a file in a folder of ours."""
    parts = PurePosixPath(name).parts
    plain = name.isprintable() and "\\" not in name and str(PurePosixPath(name)) == name
    return bool(parts) and plain and not name.startswith("/") and ".." not in parts


def allowed(name: str) -> bool:
    """Whether a bundle may hold a file of this name."""
    return safe(name) and (name in FILES or ("/" in name and name.split("/")[0] in FOLDERS))


def contents(archive: zipfile.ZipFile, where: str) -> Contents:
    """What a bundle says that it holds, compared with what it holds. Raises ReleaseInvalid."""
    names = [one.filename for one in archive.infolist()]
    if twice := next((one for one in names if names.count(one) > 1), None):
        raise _refused(f"{twice!r} stands in it twice", where)
    try:
        about = archive.getinfo(CONTENTS)
        if about.compress_type != zipfile.ZIP_STORED or about.file_size > LARGEST_TABLE:
            raise ValueError
        said = json.loads(archive.read(about))
        files = {str(name): (int(one[0]), str(one[1])) for name, one in said["files"].items()}
        found = Contents(str(said["version"]), str(said["digest"]), files)
    except (KeyError, TypeError, AttributeError, IndexError, *DAMAGED):
        raise _refused("it has no table of contents", where) from None
    for name in sorted(set(names) ^ {*files, CONTENTS, BOOT}):
        raise _refused(f"{name!r} is {'not' if name in names else 'missing, and'} in its table of contents", where)
    for one in archive.infolist():
        _check(one, files, where)
    return found


def unpack(bundle: Path, folder: Path) -> tuple[Contents, Path]:
    """Bring every member of a bundle into a new folder below `folder`. Raises ReleaseInvalid, SourceError, DiskFull."""
    try:
        archive = zipfile.ZipFile(bundle)
    except DAMAGED as error:
        raise SourceError(f"it is no bundle ({error})", str(bundle), "copy it here again") from None
    with archive:
        said = contents(archive, str(bundle))
        draft = folder / f".unpacked-{said.digest[:12]}"
        shutil.rmtree(draft, ignore_errors=True)
        try:
            for name, (size, digest) in said.files.items():
                (draft / name).parent.mkdir(parents=True, exist_ok=True)
                with (draft / name).open("wb") as file:
                    file.writelines(_stream(archive, name, size, digest))
        except BaseException as error:
            shutil.rmtree(draft, ignore_errors=True)
            if full(error):
                raise no_room(str(draft)) from error
            raise
    return said, draft


def interpreter(draft: Path, folder: Path) -> str:
    """The Python that will serve: one with the wheels of this bundle or of one before, else the one that runs this."""
    home, wheels = folder / ".venv", sorted((draft / "wheels").glob("*.whl"))
    python = str(home / "bin" / "python")
    if not wheels:
        return python if Path(python).is_file() else sys.executable
    venv.create(home, with_pip=True, clear=True)
    offline = ["--no-index", "--no-deps", "--quiet", "--disable-pip-version-check"]
    install = [python, "-m", "pip", "install", *offline, *map(str, wheels)]
    if subprocess.run(install, check=False).returncode != 0:
        raise SourceError("its wheels could not be installed", str(home), "bundle those of this kind of machine")
    return python


def main() -> None:
    """Unpack the archive that runs, check and register the release, and start; exits with the error's code."""
    words = argparse.ArgumentParser(prog=Path(sys.argv[0]).name, description="Serve a release on this machine.")
    words.add_argument(
        "folder", type=Path, help="where to unpack; what was unpacked there before is brought up to date"
    )
    words.add_argument("--key", default="", help="fingerprint that the signing key must have")
    words.add_argument("--no-start", action="store_true", help="unpack only")
    asked = words.parse_args()
    try:
        folder = asked.folder.resolve()
        said, draft = unpack(Path(sys.argv[0]).resolve(), folder)
        python = interpreter(draft, folder)
        around = os.environ | {"PYTHONPATH": str(draft / "include")}
        register = [python, "-m", "nightshift.release.install", str(draft), str(folder), said.version, said.digest]
        if (code := subprocess.run([*register, asked.key], env=around, check=False).returncode) != 0:
            shutil.rmtree(draft, ignore_errors=True)
            sys.exit(code)
        commit.file(folder / INTERPRETER, python + "\n")
    except (NightshiftError, OSError) as error:
        if (found := known(error)) is None:
            raise
        sys.exit(tell("unpack", found))
    if not asked.no_start:
        os.execv("/bin/sh", ["/bin/sh", str(folder / START)])


def _check(one: zipfile.ZipInfo, files: dict[str, tuple[int, str]], where: str) -> None:
    """Raises ReleaseInvalid for a member that is no plain file of the size and the kind of name that it may have."""
    if stat.S_IFMT(one.external_attr >> 16) not in (0, stat.S_IFREG) or one.is_dir():
        raise _refused(f"{one.filename!r} is not a plain file", where)
    if one.filename in (CONTENTS, BOOT):
        return
    if not allowed(one.filename):
        raise _refused(f"a bundle holds no {one.filename!r}", where)
    if one.compress_type != zipfile.ZIP_STORED or one.file_size != files[one.filename][0]:
        raise _refused(f"{one.filename!r} has another size than its table says", where)


def _stream(archive: zipfile.ZipFile, name: str, size: int, digest: str) -> Iterator[bytes]:
    """The chunks of a member. Raises ReleaseInvalid, at the end at last, when it is another than its table says."""
    seen, left = hashlib.sha256(), size
    try:
        with archive.open(name) as member:
            while chunk := member.read(min(commit.CHUNK, left + 1)):
                left -= len(chunk)
                seen.update(chunk)
                if left < 0:
                    break
                yield chunk
    except DAMAGED as error:
        raise _refused(f"{name!r} is damaged ({error})", str(archive.filename)) from None
    if left or seen.hexdigest() != digest:
        raise _refused(f"{name!r} is not what its table says", str(archive.filename))


def _refused(what: str, where: str) -> ReleaseInvalid:
    return ReleaseInvalid(what, where, "copy the bundle here again, or ask who made it")


def boot() -> str:
    """The text of the archive's `__main__.py`."""
    return (
        "import sys\n"
        'if sys.version_info[:2] != (3, 11):\n    sys.exit("unpack: Python 3.11 is needed; run the bundle with it.")\n'
        'sys.path.insert(0, f"{sys.path[0]}/include")\n'
        "from nightshift.release.unpack import main\n\nmain()\n"
    )


def described(said: Contents) -> dict[str, Any]:
    """A table of contents as JSON holds it."""
    files = {name: list(one) for name, one in said.files.items()}
    return {"version": said.version, "digest": said.digest, "files": files}
