"""Bad input, as a person meets it: one sentence (what, where, what to do), a code of its own, nothing half-written."""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests import warm
from tests.conftest import ROOT
from tests.night.project import unused

LOCKS = (".airflow/starting", ".airflow/followed")  # empty files that are held, never read
PROGRESS = re.compile(r"\w+: \d+ of \d+ files")
DISCOVER = ("nightshift.data.discover", "requirements.txt", "data/sources.json")
INGEST = ("nightshift.data.ingest", "data/sources.json", "data/raw")
IMPORTED = (
    "nightshift.airflow", "nightshift.answer", "nightshift.cli.endpoint", "nightshift.cli.keys", "nightshift.cli.named",
    "nightshift.cli.nights", "nightshift.data.markup", "nightshift.data.source", "nightshift.mask", "nightshift.memo",
    "nightshift.release.pattern", "nightshift.serve.exposure", "nightshift.serve.keys", "nightshift.serve.local",
    "nightshift.watching",
)  # fmt: skip
ONE_FOLDER = "    - name: packages\n      kind: packages\n      packages: [python, numpy, polars, pandas]\n"
NOTES = "    - name: notes\n      kind: folder\n      path: sources/notes\n"


@dataclass
class Place:
    """A project to be harmed, and how its commands are started."""

    root: Path
    environ: dict[str, str]
    before: Callable[[], None] | None = None  # in the child, before the command; what it changes holds from an exec on
    held: list[socket.socket] = field(default_factory=list)

    def run(self, *words: str, debug: bool = False) -> subprocess.CompletedProcess[str]:
        """A command of `nightshift`, or a stage where the first word is a module."""
        stage = words[0].startswith("nightshift.")
        command = [*words] if stage else ["nightshift.cli", *(["--debug"] if debug else []), *words]
        env = self.environ | ({"NIGHTSHIFT_DEBUG": "1"} if stage and debug else {})
        if self.before is None:
            return warm.run(*command, cwd=self.root, env=env, scratch=self.root.parent)
        return subprocess.run(
            [sys.executable, "-m", *command], cwd=self.root, env=env, capture_output=True, text=True,
            preexec_fn=self.before, timeout=60, check=False,
        )  # fmt: skip

    def edit(self, name: str, text: str, instead: str) -> None:
        """Replace a text that a file holds."""
        said = (self.root / name).read_text()
        assert text in said
        (self.root / name).write_text(said.replace(text, instead, 1))

    def notes(self, **files: str | bytes) -> Path:
        """Make a folder with these Markdown files the only source."""
        self.edit("params.yaml", ONE_FOLDER, NOTES)
        folder = self.root / "sources" / "notes"
        folder.mkdir(parents=True)
        for name, content in files.items():
            (folder / f"{name}.md").write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder

    def git(self, *words: str) -> None:
        """Git in the project."""
        subprocess.run(["git", "-C", str(self.root), *words], env=self.environ, capture_output=True, check=True)

    def listen(self) -> int:
        """A port that somebody else listens on, with a free one before it."""
        while True:
            one = socket.socket()
            one.bind(("127.0.0.1", 0))
            one.listen()
            self.held.append(one)
            port = int(one.getsockname()[1])
            with suppress(OSError), socket.socket() as other:
                other.bind(("127.0.0.1", port - 1))
                return port

    def tree(self) -> dict[str, bytes | str]:
        """Every file of the project; what Git, DVC and Python keep for themselves is left out, and so are locks."""
        found: dict[str, bytes | str] = {}
        for here, inside, names in os.walk(self.root):
            inside[:] = [one for one in inside if one not in (".git", "__pycache__") and f"{here}/{one}" != self._tmp]
            for name in names:
                path = Path(here, name)
                with suppress(OSError):
                    found[str(path)] = path.read_bytes() if not path.is_symlink() else str(path.readlink())
        return {name: held for name, held in found.items() if not name.endswith(LOCKS)}

    @property
    def _tmp(self) -> str:
        return str(self.root / ".dvc" / "tmp")


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    warm.preload(ROOT / "include", *IMPORTED)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with this checkout's definition and code, in Git."""
    folder = tmp_path_factory.mktemp("template")
    for name in ("params.yaml", "dvc.yaml", "versions.json", "requirements.txt"):
        shutil.copyfile(ROOT / name, folder / name)
    for name in ("include", "plugins"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        shutil.copyfile(ROOT / ".dvc" / name, folder / ".dvc" / name)
    (folder / ".gitignore").write_text(
        "/sources/\n/.nightshift/\n/var/\n/.airflow/\n/.dvc/tmp/\n/.dvc/cache/\n/data/\n"
    )
    made = Place(folder, _environ(folder))
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "The project"]):
        made.git(*words)
    return folder


@pytest.fixture
def place(template: Path, tmp_path: Path) -> Iterator[Place]:
    folder = tmp_path / "project"
    shutil.copytree(template, folder, symlinks=True)
    made = Place(folder, _environ(folder))
    yield made
    for one in made.held:
        one.close()
    for path in folder.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)


def _environ(folder: Path) -> dict[str, str]:
    kept = {name: said for name, said in os.environ.items() if not name.startswith(("NIGHTSHIFT_", "DVC_", "AIRFLOW"))}
    who = {f"GIT_{role}_{part}": "test" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
    ports = {"NIGHTSHIFT_AIRFLOW_PORT": str(unused()), "NIGHTSHIFT_PORT": str(unused())}
    return kept | who | ports | {"PYTHONPATH": str(folder / "include"), "DVC_NO_ANALYTICS": "1", "NO_COLOR": "1"}


def _as_anybody() -> None:
    """Let permissions hold for root too: what is executed next lacks CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH."""
    drop = 24  # PR_CAPBSET_DROP of linux/prctl.h
    for capability in (1, 2):
        ctypes.CDLL(None).prctl(drop, capability, 0, 0, 0)


# --- params.yaml and the words of a command


def _params(text: str, instead: str) -> Callable[[Place], None]:
    return lambda place: place.edit("params.yaml", text, instead)


def _not_utf8(place: Place) -> None:
    (place.root / "params.yaml").write_bytes(b"profile: t\xe9\n")


def _folder(place: Place) -> None:
    (place.root / "params.yaml").unlink()
    (place.root / "params.yaml").mkdir()


def _loop(place: Place) -> None:
    (place.root / "params.yaml").unlink()
    (place.root / "params.yaml").symlink_to("params.yaml")


def _gone(place: Place) -> None:
    (place.root / "params.yaml").unlink()


def _profiles(place: Place, instead: str) -> None:
    path = place.root / "params.yaml"
    path.write_text(f"{path.read_text().partition('profiles:')[0]}profiles: {instead}\n")


def _forbidden(place: Place) -> None:
    (place.root / "params.yaml").chmod(0)
    place.before = _as_anybody


PARAMS = {
    "unknown key": (_params("  threshold: 0.8", "  treshold: 0.8"), r":\d+: dedup\.treshold: no such key; dedup has "),
    "unknown section": (_params("dedup:", "dedupe:"), r":\d+: unknown section 'dedupe'; known are "),
    "a number as section": (_params("dedup:", "5: x\ndedup:"), r":\d+: unknown section '5'; known are "),
    "mistyped": (_params("  threads: 2", "  threads: two"), r":\d+: compute\.threads: .*a valid integer, not 'two'"),
    "out of range": (_params("  threshold: 0.8", "  threshold: 8"), r":\d+: .*less than or equal to 1, not 8"),
    "duplicate": (_params("  salt: nightshift-1", "  salt: a\n  salt: b"), r":\d+: 'salt' stands twice; keep one"),
    "missing": (_params("  salt: nightshift-1\n", ""), r":\d+: split\.salt: is missing; write it there"),
    "two that do not fit": (_params("  test: 0.1", "  test: 0.9"), r":\d+: split: .*; make them smaller"),
    "another kind": (_params("kind: packages", "kind: package"), r":\d+: sources\.items\.0: .*expected tags: 'pack"),
    "no section": (_params("adapt:\n", "adapt: 5\nother:\n"), r":\d+: unknown section 'other'; known are "),
    "profiles that are none": (lambda place: _profiles(place, "5"), r":\d+: profiles holds no sections; indent"),
    "a profile that is none": (lambda place: _profiles(place, "{laptop: 5}"), r":\d+: profiles\.laptop holds no sec"),
    "in a profile": (
        _params("    sources: {max_files: null}", "    sources: {max_files: 0}"),
        r":\d+: profiles\.laptop\.sources\.max_files: .*greater than or equal to 1, not 0",
    ),
    "no address of a proxy": (
        _params("behind_proxy: []", "behind_proxy: [10.0.0.0/8, proxy]"),
        r":\d+: serve\.listen\.behind_proxy\.1: 'proxy' does not appear to be an IPv4 or IPv6 network",
    ),
    "what another parser does not take": (
        _params("webhook: null ", "webhook: {url: https://hooks.example.org/x} "),
        r":\d+: not YAML: .*; mend the syntax there",
    ),
    "unknown profile": (_params("profile: laptop", "profile: lap"), r":3: no profile 'lap'; name one of laptop, tiny"),
    "not YAML": (_params("dedup:", "dedup: ["), r":\d+: not YAML: .*; mend the syntax"),
    "not a character": (_params("dedup:", "\x07dedup:"), r": not YAML: .*; take that character out"),
    "not UTF-8": (_not_utf8, r": it is not UTF-8 text; save it as UTF-8"),
    "a folder": (_folder, r": it cannot be read \(Is a directory\); make it a file"),
    "a loop": (_loop, r": it cannot be read \(Too many levels of symbolic links\); make it a file"),
    "gone": (_gone, r": it is not there; run in the project's folder"),
    "not to be read": (_forbidden, r": it cannot be read \(Permission denied\); make it a file that may be read"),
}


@pytest.mark.parametrize("name", PARAMS)
def test_params_that_cannot_be_used(name: str, place: Place) -> None:
    harm, says = PARAMS[name]
    harm(place)
    refused(place, 10, rf"nightshift: .*/params\.yaml{says}", "check", debug=name == "duplicate")


def _tls(certificate: str, key: str) -> Callable[[Place], None]:
    return _params("tls: null", f"tls: {{certificate: {certificate}, key: {key}}}")


NAMED = {
    "a folder": (
        lambda place: place.edit("params.yaml", ONE_FOLDER, NOTES), 10,
        r":\d+: sources\.items\.0\.path: there is no folder /.*/sources/notes; make it, or mend its path",
    ),
    "a package": (
        _params("[python, numpy, polars, pandas]", "[python, nosuchpackage]"), 10,
        r":\d+: sources\.items\.0\.packages\.1: nosuchpackage is not installed; mend its name, or add it",
    ),
    "a group": (
        _params("pandas]", "pandas]\n      groups: [public, Staff Members]"), 10,
        r":\d+: sources\.items\.0\.groups\.1: 'Staff Members' is no group; write letters, digits, and any of",
    ),
    "objectives": (
        _params("slo: slo", "slo: nosuch"), 10,
        r":\d+: environments\.items\.\d\.slo: there is no folder include/policies/nosuch; write its objectives",
    ),
    "answers that contradict each other": (
        _params("asked_from: device", "asked_from: internet"), 10,
        r":\d+: deployment: a key that many share opens the endpoint to the internet, .*; say `access: personal`",
    ),
    "an engine without its device": (
        _params("  engine: {kind: openvino}", "  engine: {kind: vllm}"), 10,
        r":\d+: serve\.engine\.kind: vllm takes a GPU, and compute\.device is cpu; name openvino, or compute",
    ),
    "an address": (
        _params("host: 127.0.0.1, tls", "host: 0.0.0.0, tls"), 22,
        r":\d+: serve\.listen\.host 0\.0\.0\.0: keys would be sent there in the clear; give serve\.listen\.tls",
    ),
    "a certificate": (
        _tls("/nope", "/nope"), 10,
        r":\d+: serve\.listen\.tls\.certificate: /nope cannot be read \(no such file or directory\); put it there",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_what_params_name_and_is_not_there(name: str, place: Place) -> None:
    harm, code, says = NAMED[name]
    harm(place)
    refused(place, code, rf"nightshift: .*/params\.yaml{says}", "check")


@pytest.mark.parametrize("name", ["an address", "a certificate"])
def test_serve_says_what_check_says(name: str, place: Place) -> None:
    harm, code, says = NAMED[name]
    harm(place)
    refused(place, code, rf"nightshift: .*/params\.yaml{says}", "serve", "--port", str(unused()))


@pytest.mark.parametrize("name", ["unknown key", "unknown section"])
def test_up_looks_at_the_params_before_it_starts_anything(name: str, place: Place) -> None:
    harm, says = PARAMS[name]
    harm(place)
    place.environ |= {"NIGHTSHIFT_PORT": str(place.listen())}  # which it would meet next
    refused(place, 10, rf"nightshift: .*/params\.yaml{says}", "up")


def test_what_is_right_is_not_spoken_of(place: Place) -> None:
    ended = place.run("check")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


WORDS = {
    "no such command": (("frob",), 2, r"No such command 'frob'; `nightshift --help` shows"),
    "no such option": (("nightly", "--fast"), 2, r"No such option: --fast.*; `nightshift --help` shows"),
    "no port": (("serve", "--port", "70000"), 2, r"Invalid value for '--port': .*65534; `nightshift --help` shows"),
    "no such profile": (("nightly", "--profile", "huge"), 10, r".*params\.yaml: no profile 'huge'; there are laptop"),
    "no such key": (("nightly", "--set", "dedup.tresh=1"), 10, r"--set: params\.yaml has no key .*; name one"),
    "out of range": (("nightly", "--set", "dedup.threshold=8"), 10, r"--set: dedup\.threshold: .*; give another value"),
    "another type": (
        ("nightly", "--set", "compute.threads=two"),
        10,
        r"--set: compute\.threads: .*; give another value",
    ),
    "not YAML": (("nightly", "--set", "compute.threads=[2"), 10, r"--set compute\.threads: '\[2' is not YAML; quote"),
    "a profile to write": (("profile", "huge"), 10, r".*params\.yaml: no profile 'huge'; there are laptop"),
    "a scope": (("keys", "create", "--scope", "all"), 22, r"--scope: no scope all; there are infer:chat"),
    "days": (("keys", "create", "--days", "99"), 22, r"--days: a key lives 1 to 90 days, not 99; give another"),
}


@pytest.mark.parametrize("name", WORDS)
def test_words_that_a_command_does_not_take(name: str, place: Place) -> None:
    words, code, says = WORDS[name]
    refused(place, code, f"nightshift: {says}", *words)


# --- the repository, its pipeline, and whose code runs


def _no_repository(place: Place) -> None:
    shutil.rmtree(place.root / ".git")


def _no_commit(place: Place) -> None:
    _no_repository(place)
    place.git("init", "-q")


def _no_pipeline(place: Place) -> None:
    (place.root / "dvc.yaml").unlink()


def _others_repository(place: Place) -> None:
    place.environ |= {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}


def _no_git(place: Place) -> None:
    place.environ["PATH"] = str(place.root)


def _others_code(place: Place) -> None:
    (place.root / "include").unlink()
    (place.root / "include" / "nightshift").mkdir(parents=True)
    (place.root / "include" / "nightshift" / "stage.py").write_text("")
    place.environ["PYTHONPATH"] = str(ROOT / "include")


def _pipeline(text: str, instead: str) -> Callable[[Place], None]:
    return lambda place: place.edit("dvc.yaml", text, instead)


REPOSITORY = {
    "none": (_no_repository, "nightly", 17, r"/.*: this is not a Git repository; go into"),
    "no commit": (_no_commit, "nightly", 17, r"/.*: there is no commit yet; `git add -A && git commit`"),
    "another owner's": (
        _others_repository,
        "check",
        17,
        r"/.*: Git cannot use .*dubious ownership.*; do what Git says",
    ),
    "no Git": (_no_git, "check", 17, r"PATH: the command `git` is not there; install Git"),
    "no dvc.yaml": (_no_pipeline, "nightly", 17, r"/.*: there is no dvc\.yaml; go into"),
    "not YAML": (_pipeline("stages:", "stages: ["), "nightly", 17, r"/.*/dvc\.yaml:\d+: not YAML: .*; mend the syntax"),
    "unknown key": (
        _pipeline("    outs: [data/raw]", "    out: [data/raw]"),
        "check",
        17,
        r"/.*/dvc\.yaml:2\d: stages\.ingest\.out: .*; mend it there",
    ),
    "no such template": (
        _pipeline("requirements.txt data/sources.json", "${lock} data/sources.json"),
        "check",
        17,
        r"/.*/dvc\.yaml:\d+: stages\.discover\.cmd: Could not find 'lock'; write it in params\.yaml, or",
    ),
    "another checkout's code": (_others_code, "check", 18, r"/.*checkout\.py: .* another checkout's; run with PYTHONP"),
    "no night yet": (lambda place: None, "pull", 17, r"/.*: there is no branch nightly yet; type `make nightly`"),
}


@pytest.mark.parametrize("name", REPOSITORY)
def test_a_repository_that_cannot_be_used(name: str, place: Place) -> None:
    harm, command, code, says = REPOSITORY[name]
    harm(place)
    refused(place, code, f"nightshift: {says}", command, debug=name in ("none", "another checkout's code"))


def test_a_night_whose_outs_the_cache_lacks(place: Place) -> None:
    lock = {"discover": {"cmd": "true", "outs": [{"path": "data/sources.json", "md5": "0" * 32, "hash": "md5"}]}}
    (place.root / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": lock}))
    for words in (["checkout", "-qb", "nightly"], ["add", "-A"], ["commit", "-qm", "A night"], ["checkout", "-q", "-"]):
        place.git(*words)
    ended = place.run("pull")
    assert ended.returncode == 15
    (sentence,) = ended.stderr.splitlines()
    says = r"nightshift: /.*/dvc\.lock: not everything .* data/sources\.json .*; `dvc fetch` .* or run the night again"
    assert re.match(says, sentence), sentence


# --- ports, the home, the state


@pytest.mark.parametrize(
    ("command", "variable", "before", "says"),
    [
        ("nightly", "NIGHTSHIFT_AIRFLOW_PORT", 0, "NIGHTSHIFT_AIRFLOW_PORT"),
        ("up", "NIGHTSHIFT_AIRFLOW_PORT", 0, "NIGHTSHIFT_AIRFLOW_PORT"),
        ("up", "NIGHTSHIFT_PORT", 0, "NIGHTSHIFT_PORT"),
        ("up", "NIGHTSHIFT_PORT", 1, "NIGHTSHIFT_PORT"),  # the admin listens on the next
        ("serve", "NIGHTSHIFT_PORT", 0, "NIGHTSHIFT_PORT"),
        ("serve", "NIGHTSHIFT_PORT", 1, "NIGHTSHIFT_PORT"),
        ("serve", "", 0, "--port"),
        ("serve", "", 1, "--port"),
    ],
)
def test_a_port_in_use(command: str, variable: str, before: int, says: str, place: Place) -> None:
    taken = place.listen()
    place.environ |= {variable: str(taken - before)} if variable else {}
    words = (command,) if variable else (command, "--port", str(taken - before))
    sentence = rf"nightshift: 127\.0\.0\.1:{taken}: something else listens there; stop it, or .*{says}"
    refused(place, 19, sentence, *words)
    assert not (place.root / ".airflow" / "airflow.json").exists()
    assert not (place.root / ".nightshift").exists()


def _home_is_a_file(place: Place) -> None:
    (place.root / "var").write_text("")


def _home_is_locked(place: Place) -> None:
    (place.root / "var" / "keys").mkdir(parents=True)
    (place.root / "var" / "keys").chmod(0)
    place.before = _as_anybody


def _keys_are_damaged(place: Place) -> None:
    assert place.run("keys", "create").returncode == 0
    (place.root / "var" / "keys" / "keys.sqlite").write_bytes(b"not SQLite" * 100)


def _night_is_damaged(place: Place) -> None:
    (place.root / ".nightshift" / "runs" / "one").mkdir(parents=True)
    (place.root / ".nightshift" / "runs" / "one" / "night.json").write_text('{"run": ')


HELD = {
    "home is a file": (_home_is_a_file, ("keys", "list"), 11, r"/.*/var.*: it cannot be used \(.*\); restore it"),
    "home is locked": (_home_is_locked, ("keys", "list"), 22, r"/.*/var/keys.*permission denied\); check its owner"),
    "keys are damaged": (_keys_are_damaged, ("keys", "list"), 13, r"/.*keys\.sqlite: .*not a database\); check that"),
    "a night is damaged": (_night_is_damaged, ("night",), 20, r"/.*/one/night\.json: .*damaged; remove that file"),
}


@pytest.mark.parametrize("name", HELD)
def test_a_home_or_state_that_cannot_be_used(name: str, place: Place) -> None:
    harm, words, code, says = HELD[name]
    harm(place)
    refused(place, code, f"nightshift: {says}", *words, debug=True)


# --- sources


def _none(place: Place) -> None:
    place.notes().rmdir()


def _unreadable_file(place: Place) -> None:
    (place.notes(a="# A", b="# B") / "a.md").chmod(0)
    place.before = _as_anybody


def _unreadable_folder(place: Place) -> None:
    (place.notes(a="# A") / "inside").mkdir(mode=0)
    place.before = _as_anybody


def _link_to_nowhere(place: Place) -> None:
    (place.notes(a="# A") / "b.md").symlink_to("nowhere")


def _link_loop(place: Place) -> None:
    (place.notes(a="# A") / "b.md").symlink_to("b.md")


def _inside_git(place: Place) -> None:
    place.notes(a="# A")
    place.edit(".gitignore", "/sources/\n", "")


def _of_another_repository(place: Place) -> None:
    place.notes(a="# A")
    place.environ |= {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}


def _not_text(place: Place) -> None:
    place.notes(a=b"\xff\xfe", b=b"zero\x00byte")
    assert place.run(*DISCOVER).returncode == 0
    assert place.run(*INGEST).returncode == 11  # what the files became is kept, and nothing else


def _changed(place: Place) -> None:
    folder = place.notes(a="# A")
    assert place.run(*DISCOVER).returncode == 0
    (folder / "a.md").write_text("# B")


SOURCES = {
    "missing": (_none, DISCOVER, 11, r"/.*/notes: the folder is not there; make it, or mend its path"),
    "empty": (lambda place: place.notes() and None, DISCOVER, 11, r"/.*/notes: no files are there; put documents"),
    "an unreadable file": (_unreadable_file, DISCOVER, 11, r"/.*/a\.md: .*Permission denied\); check its permissions"),
    "an unreadable folder": (_unreadable_folder, DISCOVER, 11, r"/.*/inside: .*Permission denied\); mend its perm"),
    "a link to nowhere": (_link_to_nowhere, DISCOVER, 11, r"/.*/b\.md: .*No such file.*\); mend its permissions or"),
    "a link to itself": (_link_loop, DISCOVER, 11, r"/.*/b\.md: .*Too many levels.*\); mend its permissions or where"),
    "inside Git": (_inside_git, DISCOVER, 11, r"/.*/notes: .* inside Git .*; move them away, or add /sources/notes/"),
    "another owner's": (_of_another_repository, DISCOVER, 11, r"/.*/notes: Git cannot say .*; do what Git says"),
    "not text": (_not_text, INGEST, 11, r"source notes: no file .*: a\.md is not-text, and 1 more; put files of UTF-8"),
    "changed since": (_changed, INGEST, 11, r"notes: a\.md: it changed since it was discovered; run the night again"),
    "no list of them": (lambda place: None, INGEST, 11, r"data/sources\.json: it cannot be used \(no such file"),
    "one word too few": (lambda place: None, DISCOVER[:2], 2, r"the word for out is missing; type `python -m night"),
    "one word too many": (lambda place: None, (*DISCOVER, "x"), 2, r"'x' is one word too many; type `python -m night"),
    "another checkout's code": (_others_code, DISCOVER, 18, r"/.*checkout\.py: .*another checkout's; run with PYTHON"),
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_stage_that_cannot_use_what_it_is_given(name: str, place: Place) -> None:
    harm, words, code, says = SOURCES[name]
    harm(place)
    debug = name in ("missing", "no list of them", "one word too few")
    refused(place, code, f"{words[0].rpartition('.')[2]}: {says}", *words, debug=debug)


def test_dvc_shows_a_stages_own_sentence_and_code(place: Place) -> None:
    place.notes()
    before = place.tree()
    asked = [sys.executable, "-m", "dvc", "repro", "discover"]
    ended = subprocess.run(asked, cwd=place.root, env=place.environ, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert re.search(r"^discover: /.*/notes: no files are there; put documents there", ended.stderr, re.MULTILINE)
    assert "exited with 11" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert {name for name in place.tree() if "/data/" in name} == {name for name in before if "/data/" in name}


# --- a full disk


@pytest.fixture
def full(place: Place) -> Iterator[Callable[[], bool]]:
    """Fill the disk that the project lies on; where none may be mounted, a limit on files stands for it, and False."""
    mounted = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place.root)]
    held = place.root.with_name("held")
    shutil.copytree(place.root, held, symlinks=True)
    on_disk = subprocess.run(mounted, capture_output=True, check=False).returncode == 0
    if on_disk:
        shutil.copytree(held, place.root, symlinks=True, dirs_exist_ok=True)

    def fill() -> bool:
        if not on_disk:
            place.before = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
            return False
        with suppress(OSError), (place.root / "filler").open("wb", buffering=0) as filler:
            while filler.write(b"x" * 4096):
                pass
        return True

    yield fill
    if on_disk:
        subprocess.run(["umount", str(place.root)], check=True)


def _discovered(place: Place) -> None:
    place.notes(a="# A", b="# B")
    assert place.run(*DISCOVER).returncode == 0


FULL = {
    "params": (lambda place: None, ("profile", "tiny"), r"nightshift: /.*/params\.yaml: no room"),
    "a key": (lambda place: None, ("keys", "create"), r"nightshift: /.*/var/.*: no room"),
    "Airflow": (lambda place: None, ("nightly",), r"nightshift: /.*: no room"),
    "an out": (lambda place: place.notes(a="# A") and None, DISCOVER, r"discover: data/sources\.json: no room"),
    "a memo": (_discovered, INGEST, r"ingest: /.*/\.nightshift/memo.*: no room"),
}


# SQLite tells a full disk, but calls a limit on files a disk error; DVC and the memo write with it
LIMITED = {
    "Airflow": (17, r"nightshift: /.*/dvc\.yaml: .*disk I/O error\); see what `dvc status` says"),
    "a memo": (13, r"ingest: /.*/\.nightshift/memo.*disk I/O error\); check that disk"),
}


@pytest.mark.parametrize("name", FULL)
def test_a_full_disk(name: str, place: Place, full: Callable[[], bool]) -> None:
    prepare, words, says = FULL[name]
    prepare(place)
    code, sentence = 14, rf"{says} left on the disk; free some space there and run again"
    if not full():
        code, sentence = LIMITED.get(name, (code, sentence))
    refused(place, code, sentence, *words, debug=name == "an out")


def refused(place: Place, code: int, says: str, *words: str, debug: bool = False) -> None:
    """Run a command that must be refused; with `debug` also for one who asks for tracebacks."""
    before = place.tree()
    plain = place.run(*words)
    assert (plain.returncode, plain.stdout) == (code, ""), plain.stderr
    (sentence,) = [line for line in plain.stderr.splitlines() if not PROGRESS.fullmatch(line)]
    assert re.match(says, sentence), sentence
    assert sentence.endswith(".")
    if debug:
        asked = place.run(*words, debug=True)
        assert asked.returncode == code
        assert "Traceback" in asked.stderr
        assert asked.stderr.splitlines()[-1] == sentence
    assert place.tree() == before
