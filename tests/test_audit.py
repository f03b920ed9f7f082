"""What stands in the audit stays as it was written, or it is seen."""

from __future__ import annotations

import json
import os
import pwd
import random
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from nightshift import anchor, audit, commit, invariants, registry, signature
from nightshift.errors import AccessDenied, DiskFull, no_room
from nightshift.release import publish


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for number in range(3):
        audit.write(tmp_path / "var", 1e9 + number, actor="ann", action="approve", target=f"{number}" * 8)
    return tmp_path / "var"


def test_an_untouched_audit_holds(home: Path) -> None:
    assert audit.verify(home) == 3
    assert (home / audit.FILE).stat().st_mode & 0o777 == 0o600
    assert audit.verify(home / "elsewhere") == 0


@pytest.mark.parametrize(
    ("line", "change"),
    [
        (2, lambda lines: [lines[0], lines[1].replace("ann", "bob"), lines[2]]),
        (2, lambda lines: [lines[0], lines[2]]),
        (1, lambda lines: lines[1:]),
        (1, lambda lines: lines[::-1]),
        (3, lambda lines: [*lines[:2], lines[2][:30]]),
        (2, lambda lines: [lines[0], "[]", lines[2]]),
    ],
    ids=["a line was changed", "one was taken out", "the first was", "their order", "one was cut off", "one is none"],
)
def test_a_changed_audit_is_seen(home: Path, line: int, change: object) -> None:
    path = home / audit.FILE
    assert callable(change)
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    with pytest.raises(AccessDenied, match=rf"audit\.jsonl:{line}: the audit was changed"):
        audit.verify(home)


def test_a_disk_that_fills_up_leaves_the_audit_as_it_was(home: Path) -> None:
    path = home / audit.FILE
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, hard))
    try:
        with pytest.raises(DiskFull, match="no room left"):
            audit.write(home, 2e9, actor="ann", action="approve", target="x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    audit.write(home, 2e9, actor="ann", action="approve", target="x")
    assert audit.verify(home) == 4


def test_a_head_that_cannot_be_written_leaves_no_event_of_what_was_not_done(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (home / audit.FILE).read_bytes()

    def full(path: Path, *_: object) -> None:
        raise no_room(str(path))

    with monkeypatch.context() as patched, pytest.raises(DiskFull, match="no room left"):
        patched.setattr(commit, "file", full)
        audit.write(home, 2e9, actor="ann", action="key.revoke", target="x")
    assert (home / audit.FILE).read_bytes() == before
    assert audit.verify(home) == 3


def test_nothing_is_added_to_an_audit_that_was_cut_off(home: Path) -> None:
    path = home / audit.FILE
    path.write_bytes(path.read_bytes()[:-10])
    before = path.read_bytes()
    with pytest.raises(AccessDenied, match=r"audit\.jsonl:3: the audit was changed"):
        audit.write(home, 2e9, actor="ann", action="approve", target="x")
    assert path.read_bytes() == before


def test_what_is_appended_to_an_audit_that_lost_its_end_leaves_that_to_be_seen(home: Path) -> None:
    path = home / audit.FILE
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(whole[0])
    with pytest.raises(AccessDenied, match=r"audit\.jsonl:2: the audit was changed, events 2 to 3 are missing"):
        audit.verify(home)
    for target in ("x", "y"):
        audit.write(home, 2e9, actor="ann", action="rollback", target=target)  # which nothing may hold up
        with pytest.raises(AccessDenied, match=r"audit\.jsonl:2: the audit was changed, events 2 to 3 are missing"):
            audit.verify(home)
    assert [one["seq"] for one in audit.events(home)] == [1, 4, 5]
    path.write_bytes(b"".join([*whole, *path.read_bytes().splitlines(keepends=True)[1:]]))  # from a copy
    assert audit.verify(home) == 5


def test_an_audit_whose_whole_log_went_says_so_for_good(home: Path) -> None:
    (home / audit.FILE).unlink()
    audit.write(home, 2e9, actor="ann", action="rollback", target="x")
    with pytest.raises(AccessDenied, match=r"audit\.jsonl:1: the audit was changed, events 1 to 3 are missing"):
        audit.verify(home)


def test_an_end_that_was_written_anew_is_seen_after_the_next_event_too(home: Path) -> None:
    path, head = home / audit.FILE, (home / audit.HEAD).read_bytes()
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    (home / audit.HEAD).unlink()
    audit.write(home, 2e9, actor="ann", action="promote", target="x")
    (home / audit.HEAD).write_bytes(head)
    audit.write(home, 2e9, actor="ann", action="rollback", target="x")
    with pytest.raises(AccessDenied, match=r"audit\.jsonl:4: the audit was changed"):
        audit.verify(home)


def test_a_kill_before_the_head_was_noted_is_no_change(home: Path) -> None:
    before = (home / audit.HEAD).read_bytes()
    for target in ("x", "y"):
        audit.write(home, 2e9, actor="ann", action="approve", target=target)
    (home / audit.HEAD).write_bytes(before)
    assert audit.verify(home) == 5
    audit.write(home, 2e9, actor="ann", action="approve", target="z")
    assert audit.verify(home) == 6


def test_an_event_may_hold_what_ends_a_line_of_text(home: Path) -> None:
    audit.write(home, 2e9, actor="ann", action="approve", target="x", reason="one\u2028two\u2029three\x85four")
    audit.write(home, 2e9, actor="ann", action="approve", target="y")
    assert audit.verify(home) == 5
    assert [one["target"] for one in audit.events(home, 2)] == ["x", "y"]
    assert len(audit.events(home)) == 5


@pytest.mark.parametrize("line", [b"{", b"[]", b"\xff"])
def test_what_is_left_of_a_damaged_audit_can_be_shown(line: bytes, home: Path) -> None:
    path = home / audit.FILE
    path.write_bytes(path.read_bytes() + line + b"\n")
    assert [one["seq"] for one in audit.events(home, 3)] == [2, 3]
    with pytest.raises(AccessDenied, match="the audit was changed"):
        audit.verify(home)


def edited(lines: list[bytes], drawn: random.Random) -> list[bytes]:
    """One edit: a letter, a line gone, doubled, moved or put in, the end gone, or two lines exchanged."""
    made, at = list(lines), drawn.randrange(len(lines))
    kind = drawn.randrange(7)
    if kind == 0:
        letters = bytearray(made[at])
        letters[drawn.randrange(len(letters))] ^= 1 << drawn.randrange(7)
        made[at] = bytes(letters)
    elif kind == 1:
        del made[at]
    elif kind == 2:
        made.insert(at, made[at])
    elif kind == 3:
        made.insert(drawn.randrange(len(made)), made.pop(at))
    elif kind == 4:
        del made[at:]
    elif kind == 5:
        made.insert(at, json.dumps({"seq": at + 1, "prev": audit.FIRST, "hash": "a" * 64}).encode())
    else:
        other = drawn.randrange(len(made))
        made[at], made[other] = made[other], made[at]
    return made


def test_a_thousand_edits_are_all_seen(tmp_path: Path) -> None:
    for number in range(12):
        audit.write(tmp_path, 1e9 + number, actor="ann", action="approve", target=f"{number}" * 8, reason="ü, 泵")
    path, drawn, changed = tmp_path / audit.FILE, random.Random(3), 0
    whole = path.read_bytes().splitlines()
    while changed < 1000:
        made = edited(whole, drawn)
        if made == whole:
            continue
        path.write_bytes(b"".join(line + b"\n" for line in made))
        with pytest.raises(AccessDenied, match="the audit was changed"):
            audit.verify(tmp_path)
        changed += 1
    path.write_bytes(b"".join(line + b"\n" for line in whole))
    assert audit.verify(tmp_path) == 12


@pytest.mark.parametrize("said", [b"", b"{}", b'{"seq": 2, "hash": "a"}', b'{"seq": "x", "hash": 1}', b"[1]"])
def test_a_head_that_was_changed_is_seen(said: bytes, home: Path) -> None:
    (home / audit.HEAD).write_bytes(said)
    for _ in range(2):  # what is written meanwhile does not mend it
        with pytest.raises(AccessDenied, match="the audit was changed"):
            audit.verify(home)
        audit.write(home, 2e9, actor="ann", action="approve", target="x")


def test_what_was_kept_before_there_was_a_head_is_gone_on_with(home: Path) -> None:
    (home / audit.HEAD).unlink()
    assert audit.verify(home) == 3
    audit.write(home, 2e9, actor="ann", action="approve", target="x")
    assert audit.verify(home) == 4


ENDLESS = """
import sys
from pathlib import Path
from nightshift import audit
for number in range(10**6):
    audit.write(Path(sys.argv[1]), 1e9 + number, actor="ann", action="approve", target="x" * 200)
    print(number + 1, flush=True)
"""


def test_a_kill_while_it_is_written_loses_nothing_that_was_said_to_be_kept(tmp_path: Path) -> None:
    drawn, kept = random.Random(5), 0
    for _ in range(6):
        with subprocess.Popen([sys.executable, "-c", ENDLESS, str(tmp_path)], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            for _ in range(drawn.randrange(1, 60)):
                child.stdout.readline()
                kept += 1
            child.send_signal(signal.SIGKILL)
            kept += len(child.stdout.read().splitlines())
        assert child.returncode == -signal.SIGKILL
        found = audit.verify(tmp_path)
        assert kept <= found <= kept + 1  # one was kept, and not said so yet
        kept = found


def test_who_acts_is_whom_the_system_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "somebody-else")
    assert audit.actor() == pwd.getpwuid(os.getuid()).pw_name
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_001)
    assert audit.actor() == "uid 4000000001"


def test_the_page_names_every_action(root: Path) -> None:
    page = (root / "docs" / "deployment.md").read_text().partition("## The audit")[2].partition("```")[0]
    for who, actions in (("people", audit.BY_PEOPLE), ("nights", audit.BY_NIGHTS), ("the endpoint", audit.BY_ENDPOINT)):
        listed = " ".join(page.split()).partition(f"y {who}: ")[2].partition(";" if who != "the endpoint" else ".")[0]
        assert tuple(re.findall(r"`([a-z.-]+)`", listed)) == actions


def test_what_is_no_action_is_not_written(home: Path) -> None:
    with pytest.raises(ValueError, match="'forget' is no action of the audit"):
        audit.write(home, 2e9, actor="ann", action="forget", target="x")
    assert audit.verify(home) == 3


@pytest.fixture
def nights(home: Path, tmp_path: Path) -> Path:
    """A repository with three nights, each naming the audit's last event of its time."""
    root = tmp_path / "repository"
    run = partial(subprocess.run, cwd=root, check=True)
    root.mkdir()
    run(["git", "init", "-q", "-b", registry.BRANCH])
    signature.publish(home, root / "keys")
    for number in range(3):
        audit.write(home, 2e9 + number, actor=f"night {number}", action="verdict", target="x")
        message = publish.anchored({"message": f"Night {number}\n\nNothing was released."}, home)["message"]
        who = ["-c", "user.name=t", "-c", "user.email=t@t"]
        run(["git", *who, "commit", "-q", "--allow-empty", "-m", message])
    return root


def test_the_nights_commits_name_the_audits_last_events(nights: Path, home: Path) -> None:
    assert [one.number for one in anchor.named(nights)] == [6, 5, 4]
    assert anchor.verify(home, nights) == 6
    assert anchor.elsewhere(home, nights) is None
    audit.write(home, 3e9, actor="ann", action="approve", target="y")
    assert anchor.verify(home, nights) == 7


def written_anew(home: Path) -> None:
    """Somebody who can write wrote another log, whole in itself, as long as the one before."""
    said = audit.events(home)
    (home / audit.FILE).unlink()
    (home / audit.HEAD).unlink()
    for one in said:
        changed = {name: one[name] for name in ("actor", "action", "target")} | {"actor": "eve"}
        audit.write(home, one["time"], **changed)


def taken_away(home: Path) -> None:
    (home / audit.FILE).unlink()
    (home / audit.HEAD).unlink()


def cut_off(home: Path) -> None:
    """The end is gone, and the head says that this is the end."""
    kept = (home / audit.FILE).read_bytes().splitlines(keepends=True)[:4]
    (home / audit.FILE).write_bytes(b"".join(kept))
    last = json.loads(kept[-1])
    (home / audit.HEAD).write_text(json.dumps({"seq": 4, "hash": last["hash"]}))


@pytest.mark.parametrize(("how", "first"), [(written_anew, 4), (taken_away, 4), (cut_off, 5)])
def test_git_tells_of_an_audit_that_was_taken_away(
    how: Callable[[Path], None], first: int, nights: Path, home: Path
) -> None:
    how(home)
    audit.verify(home)  # which by itself does not see it
    with pytest.raises(AccessDenied, match=rf"audit\.jsonl:{first}: event {first} is not the one that commit"):
        anchor.verify(home, nights)
    assert list(invariants.broken(home, nights)) == [invariants.AUDIT]


def test_an_audit_that_is_lost_for_good_ends_with_its_key(nights: Path, home: Path) -> None:
    taken_away(home)
    signature.rotate(home, nights / "keys", [])
    assert anchor.verify(home, nights) == 0
    other = anchor.elsewhere(home, nights)
    assert other is not None
    assert other.number == 6
