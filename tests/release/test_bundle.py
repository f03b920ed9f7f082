"""One file carries a release to a machine without a network; what was done to it on the way is seen."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from nightshift import audit, commit, params, registry, signature
from nightshift.errors import NightshiftError, ReleaseInvalid, SourceError
from nightshift.registry import Assignment, Release
from nightshift.release import install, unpack
from nightshift.release.bundle import bundle
from tests.release.project import Released

Members = list[tuple[zipfile.ZipInfo, bytes]]
OFFLINE = Path(__file__).with_name("offline.py")
APART = ["unshare", "--map-root-user", "--net"]


@pytest.fixture(scope="session")
def bundles(template: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A bundle of each version."""
    made, folder = Released(template), tmp_path_factory.mktemp("bundles")
    for version in ("v0.1.0", "v0.2.0"):
        bundle(made.store, made.release(version), folder / f"{version}.pyz")
    return {one.stem: one for one in folder.iterdir()}


def put(bundle: Path, folder: Path, key: str = "") -> tuple[Assignment, str]:
    """Unpack and register a bundle in this process."""
    said, draft = unpack.unpack(bundle, folder)
    return install.install(draft, folder, Release(said.version, "", said.digest), key, "ann", 1e9)


def apart() -> bool:
    """Whether this machine lets a test have a network of its own."""
    return shutil.which("unshare") is not None and subprocess.run([*APART, "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not apart(), reason="no network namespaces here")
def test_an_empty_folder_without_a_network_answers(bundles: dict[str, Path], tmp_path: Path) -> None:
    words = [*APART, sys.executable, str(OFFLINE), str(bundles["v0.2.0"]), str(tmp_path / "here"), "What is oiled?"]
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path / "nobody")}
    ended = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    assert said["outside"] is False
    assert said["answer"]["nightshift"]["version"] == "v0.2.0"
    assert said["answer"]["nightshift"]["sections"][0]["path"] == "pump.md"
    assert said["ended"] == 0
    assert {one.name for one in tmp_path.iterdir()} <= {"here", "nobody"}
    listed = subprocess.run(
        [tmp_path / "here" / "start", "release", "list"], capture_output=True, text=True, check=True
    )
    assert listed.stdout.split()[0] == "v0.2.0"
    assert listed.stdout.split()[-1] == "prod"
    checked = subprocess.run([tmp_path / "here" / "start", "check"], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    trace = [tmp_path / "here" / "start", "trace", said["answer"]["nightshift"]["trace"]]
    traced = subprocess.run(trace, capture_output=True, text=True, check=False)
    assert traced.returncode == 0, traced.stderr
    assert "It came in a bundle" in traced.stdout
    assert "pump.md" in traced.stdout


def test_the_same_release_is_the_same_file(project: Released, bundles: dict[str, Path], tmp_path: Path) -> None:
    digest, key = bundle(project.store, project.release("v0.1.0"), tmp_path / "again.pyz")
    assert digest == commit.sha256(tmp_path / "again.pyz") == commit.sha256(bundles["v0.1.0"])
    assert key == signature.current(project.store.home)


def test_no_bundle_is_made_of_what_is_not_trusted(project: Released, tmp_path: Path) -> None:
    project.store.signature(project.release("v0.1.0").digest).unlink()
    with pytest.raises(ReleaseInvalid, match="it has no signature"):
        bundle(project.store, project.release("v0.1.0"), tmp_path / "one.pyz")
    with pytest.raises(SourceError, match="no wheels are there"):
        bundle(project.store, project.release("v0.2.0"), tmp_path / "one.pyz", tmp_path)
    assert not list(tmp_path.glob("*.pyz*"))


def test_a_second_bundle_is_the_next_version_and_an_older_one_is_refused(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    here = tmp_path / "here"
    first, key = put(bundles["v0.1.0"], here)
    second, _ = put(bundles["v0.2.0"], here)
    assert [(one.release.version, one.number) for one in (first, second)] == [("v0.1.0", 1), ("v0.2.0", 2)]
    assert put(bundles["v0.2.0"], here)[0] == second
    with pytest.raises(ReleaseInvalid, match=r"v0\.1\.0: it is older than v0\.2\.0, which is here"):
        put(bundles["v0.1.0"], here)
    assert registry.current(here) == second.release
    assert [one.name for one in (here / "keys").iterdir()] == [f"{key[:16]}.pem"]
    assert audit.verify(here / "var") == 3
    assert (here / "start").stat().st_mode & 0o111


def test_what_is_set_where_a_bundle_was_unpacked_stays(bundles: dict[str, Path], tmp_path: Path) -> None:
    here = tmp_path / "here"
    put(bundles["v0.1.0"], here)
    own = (here / "params.yaml").read_text().replace("host: 127.0.0.1, tls", "host: 127.0.0.2, tls")
    (here / "params.yaml").write_text(own)
    put(bundles["v0.2.0"], here)
    assert (here / "params.yaml").read_text() == own
    assert "host: 127.0.0.1, tls" in (here / install.CAME).read_text()


def test_a_bundle_tells_nobody_of_the_machine_that_made_it(project: Released, tmp_path: Path) -> None:
    hook = {"url": "https://hooks.example.org/x"}
    values = {"notify.webhook": hook, "traces.otlp": "http://127.0.0.1:4318/v1/traces"}
    params.write(project.folder / params.FILE, values, "test")
    bundle(project.store, project.release("v0.1.0"), tmp_path / "one.pyz")
    with zipfile.ZipFile(tmp_path / "one.pyz") as archive:
        said = archive.read("params.yaml").decode()
    assert "hooks.example.org/x" not in said
    assert "4318" not in said
    assert "hooks.example.org/x" in (project.folder / params.FILE).read_text()


def test_a_bundle_with_a_key_that_is_not_known_here_needs_its_name(
    project: Released, bundles: dict[str, Path], tmp_path: Path
) -> None:
    here = tmp_path / "here"
    _, first = put(bundles["v0.1.0"], here)
    _, other = signature.rotate(project.store.home, project.store.keys, [project.release("v0.1.0").digest])
    folder = registry.fetch(project.folder, project.release("v0.2.0"), tmp_path / "copy")
    signature.sign(folder, project.store.signature(project.release("v0.2.0").digest), project.store.home)
    _, signed = bundle(project.store, project.release("v0.2.0"), tmp_path / "two.pyz")
    with pytest.raises(ReleaseInvalid, match=f"signed with key {other}, which is not known here"):
        put(tmp_path / "two.pyz", here)
    with pytest.raises(ReleaseInvalid, match=f"signed with key {other}, not with {first}"):
        put(tmp_path / "two.pyz", here, key=first)
    assert put(tmp_path / "two.pyz", here, key=other)[1] == other == signed
    assert {one.name for one in (here / "keys").iterdir()} == {
        f"{first[:16]}.pem", f"{first[:16]}.json", f"{other[:16]}.pem",
    }  # fmt: skip


def test_a_key_that_was_only_carried_along_is_not_trusted(bundles: dict[str, Path], tmp_path: Path) -> None:
    stranger = signature.publish(tmp_path / "stranger", tmp_path / "theirs")
    with_key = tmp_path / "with.pyz"
    rewrite(bundles["v0.1.0"], with_key, lambda members: _add(members, "keys/x.pem", _only(tmp_path / "theirs")))
    put(with_key, tmp_path / "here")
    assert stranger not in {signature.fingerprint(one) for one in (tmp_path / "here" / "keys").iterdir()}


def test_what_was_altered_within_is_refused(bundles: dict[str, Path], tmp_path: Path) -> None:
    def better(members: Members) -> None:
        """Alter a file, the manifest and the table of contents."""
        _set(members, "release/card.md", b"Better.")
        said = json.loads(_get(members, "release/manifest.json")) | {"card.md": commit.hashed(b"Better.")}
        _set(members, "release/manifest.json", commit.dumps(said).encode())

    rewrite(bundles["v0.1.0"], tmp_path / "card.pyz", lambda members: _set(members, "release/card.md", b"Better."))
    with pytest.raises(ReleaseInvalid, match=r"card\.md differs from the manifest"):
        put(tmp_path / "card.pyz", tmp_path / "here")
    rewrite(bundles["v0.1.0"], tmp_path / "all.pyz", better)
    with pytest.raises(ReleaseInvalid, match="it is not the release that its bundle names"):
        put(tmp_path / "all.pyz", tmp_path / "here")

    def renamed(members: Members) -> None:
        better(members)
        said = json.loads(_get(members, unpack.CONTENTS))
        said["digest"] = commit.hashed(_get(members, "release/manifest.json"))
        _set(members, unpack.CONTENTS, json.dumps(said).encode())

    rewrite(bundles["v0.1.0"], tmp_path / "named.pyz", renamed)
    with pytest.raises(ReleaseInvalid, match="its signature does not hold"):
        put(tmp_path / "named.pyz", tmp_path / "here")
    assert not (tmp_path / "here" / ".git").exists()


def test_other_libraries_than_it_was_judged_with_are_refused(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "1.0" if name == "torch" else real(name))
    with pytest.raises(SourceError, match=r"torch 1\.0 is installed, and the release was judged with 2\."):
        put(bundles["v0.1.0"], tmp_path / "here")

    def lacking(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", lacking)
    with pytest.raises(SourceError, match=r"bm25s is not installed"):
        put(bundles["v0.1.0"], tmp_path / "here")
    assert not (tmp_path / "here" / ".git").exists()


@pytest.mark.parametrize("library", ["cryptography", "model_signing"])
def test_a_python_without_the_libraries_does_not_call_it_forged(
    library: str, bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(bundles["v0.1.0"], tmp_path / "here")
    monkeypatch.setitem(sys.modules, library, None)
    for folder in ("here", "elsewhere"):
        with pytest.raises(SourceError, match=rf"{library} is not installed, and no signature .*; use a Python that"):
            put(bundles["v0.2.0"], tmp_path / folder)


@pytest.mark.long
def test_wheels_that_it_carries_become_an_environment_of_its_own(project: Released, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "thing-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("thing.py", "SAID = 'offline'\n")
        wheel.writestr("thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
        wheel.writestr("thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("thing-1.0.dist-info/RECORD", "")
    bundle(project.store, project.release("v0.1.0"), tmp_path / "one.pyz", wheels)
    here = tmp_path / "here"
    _, draft = unpack.unpack(tmp_path / "one.pyz", here)
    python = unpack.interpreter(draft, here)
    assert python == str(here / ".venv" / "bin" / "python")
    said = subprocess.run([python, "-c", "import thing; print(thing.SAID)"], capture_output=True, text=True, check=True)
    assert said.stdout == "offline\n"
    shutil.rmtree(draft / "wheels")
    assert unpack.interpreter(draft, here) == python
    shutil.rmtree(here / ".venv")
    assert unpack.interpreter(draft, here) == sys.executable


def rewrite(bundle: Path, out: Path, change: Callable[[Members], Any], table: bool = True) -> None:
    """A bundle with other members; its table of contents says what is there, unless it is not to."""
    with zipfile.ZipFile(bundle) as archive:
        members = [(one, archive.read(one)) for one in archive.infolist()]
    change(members)
    if table:
        said = json.loads(_get(members, unpack.CONTENTS))
        own = (unpack.CONTENTS, unpack.BOOT)
        files = {one.filename: [len(text), commit.hashed(text)] for one, text in members if one.filename not in own}
        _set(members, unpack.CONTENTS, json.dumps(said | {"files": files}).encode())
    with zipfile.ZipFile(out, "w") as archive:
        for one, text in members:
            archive.writestr(one, text, one.compress_type)


def _get(members: Members, name: str) -> bytes:
    return next(text for one, text in members if one.filename == name)


def _set(members: Members, name: str, text: bytes) -> None:
    at = next(place for place, (one, _) in enumerate(members) if one.filename == name)
    members[at] = (members[at][0], text)


def _add(
    members: Members, name: str, text: bytes = b"x", mode: int = stat.S_IFREG | 0o644, deflate: bool = False
) -> None:
    one = zipfile.ZipInfo(name)
    one.filename = name  # ZipInfo makes a name of its own of some
    one.external_attr = mode << 16
    one.compress_type = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
    members.append((one, text))


def _drop(members: Members, name: str) -> None:
    members[:] = [one for one in members if one[0].filename != name]


def _only(folder: Path) -> bytes:
    (one,) = folder.iterdir()
    return one.read_bytes()


# what is done to a bundle, what is said, and whether its table of contents agrees
EVIL: dict[str, tuple[Callable[[Members], Any], str, bool]] = {
    "out by dots": (lambda all_: _add(all_, "include/../../evil"), "a bundle holds no", True),
    "out from the root": (lambda all_: _add(all_, "/tmp/evil"), "a bundle holds no", True),
    "out by backslashes": (lambda all_: _add(all_, "include\\..\\evil"), "a bundle holds no", True),
    "a dot in the name": (lambda all_: _add(all_, "include/./evil"), "a bundle holds no", True),
    "an empty step": (lambda all_: _add(all_, "include//evil"), "a bundle holds no", True),
    "a newline": (lambda all_: _add(all_, "include/e\nvil"), "a bundle holds no", True),
    "a hook of Git": (lambda all_: _add(all_, ".git/hooks/post-commit"), "a bundle holds no", True),
    "an environment": (lambda all_: _add(all_, ".venv/bin/python"), "a bundle holds no", True),
    "a file for a folder": (lambda all_: _add(all_, "include"), "a bundle holds no", True),
    "a link": (lambda all_: _add(all_, "include/evil", b"/etc", stat.S_IFLNK | 0o777), "is not a plain file", True),
    "a device": (lambda all_: _add(all_, "include/evil", b"", stat.S_IFCHR | 0o666), "is not a plain file", True),
    "a pipe": (lambda all_: _add(all_, "include/evil", b"", stat.S_IFIFO | 0o666), "is not a plain file", True),
    "a folder": (lambda all_: _add(all_, "include/evil/", b""), "is not a plain file", True),
    "a name twice": (lambda all_: _add(all_, "include/nightshift/commit.py"), "stands in it twice", True),
    "small and large": (lambda all_: _add(all_, "include/evil", b"0" * 10**7, deflate=True), "another size", True),
    "unlisted": (lambda all_: _add(all_, "include/evil"), "'include/evil' is not in its table", False),
    "missing": (lambda all_: _drop(all_, "model.sig"), r"'model\.sig' is missing, and in its table", False),
    "another size": (lambda all_: _set(all_, "start", b"rm"), "another size than its table says", False),
    "another content": (
        lambda all_: _set(all_, "start", _get(all_, "start").replace(b"exec", b"evil")),
        "'start' is not what its table says", False,
    ),
    "no table": (lambda all_: _drop(all_, unpack.CONTENTS), "no table of contents", False),
    "a table that is none": (lambda all_: _set(all_, unpack.CONTENTS, b"[]"), "no table of contents", False),
    "a table of nonsense": (lambda all_: _set(all_, unpack.CONTENTS, b'{"files": {"a": 1}}'), "no table", False),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", EVIL)
def test_an_archive_that_is_no_bundle_writes_nothing(name: str, bundles: dict[str, Path], tmp_path: Path) -> None:
    change, said, agrees = EVIL[name]
    rewrite(bundles["v0.1.0"], tmp_path / "evil.pyz", change, agrees)
    before = Path("/tmp/evil").exists()
    with pytest.raises(NightshiftError, match=said) as refused:
        unpack.unpack(tmp_path / "evil.pyz", tmp_path / "deep" / "here")
    assert refused.value.code in (ReleaseInvalid.code, SourceError.code)
    assert not (tmp_path / "deep").exists() or list((tmp_path / "deep").rglob("*")) == [tmp_path / "deep" / "here"]
    assert before is Path("/tmp/evil").exists()


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.999])
def test_a_file_that_arrived_in_part_is_no_bundle(keep: float, bundles: dict[str, Path], tmp_path: Path) -> None:
    whole = bundles["v0.1.0"].read_bytes()
    (tmp_path / "cut.pyz").write_bytes(whole[: int(keep if keep >= 1 else keep * len(whole))])
    with pytest.raises(SourceError, match="it is no bundle"):
        unpack.unpack(tmp_path / "cut.pyz", tmp_path / "here")


def test_a_flipped_bit_anywhere_is_refused_or_changes_nothing(bundles: dict[str, Path], tmp_path: Path) -> None:
    whole = bundles["v0.1.0"].read_bytes()
    sound = _tree(_unpacked(bundles["v0.1.0"], tmp_path / "sound"))
    refused = 0
    for place in range(11, len(whole), len(whole) // 20):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        (tmp_path / "flipped.pyz").write_bytes(damaged)
        try:
            draft = _unpacked(tmp_path / "flipped.pyz", tmp_path / "flipped")
        except (ReleaseInvalid, SourceError):
            refused += 1
        else:
            assert _tree(draft) == sound
    assert refused > 15


def _unpacked(bundle: Path, folder: Path) -> Path:
    return unpack.unpack(bundle, folder)[1]


def _tree(folder: Path) -> dict[str, str]:
    return {name: commit.sha256(folder / name) for name in commit.names(folder)}


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a\\..\\x", "", ".", "a//b", "./a", "a\0b", "a\nb"])
def test_a_name_that_leads_elsewhere_is_none(name: str) -> None:
    assert not unpack.safe(name)


@pytest.mark.parametrize("name", ["card.md", "system/base/model.safetensors", "..a", "a..b/c"])
def test_a_plain_name_is_one(name: str) -> None:
    assert unpack.safe(name)
