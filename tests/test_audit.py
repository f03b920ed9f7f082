"""What stands in the audit stays as it was written, or it is seen."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from nightshift import audit
from nightshift.errors import AccessDenied, DiskFull


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


def test_nothing_is_added_to_an_audit_that_was_cut_off(home: Path) -> None:
    path = home / audit.FILE
    path.write_bytes(path.read_bytes()[:-10])
    before = path.read_bytes()
    with pytest.raises(AccessDenied, match=r"audit\.jsonl:3: the audit was changed"):
        audit.write(home, 2e9, actor="ann", action="approve", target="x")
    assert path.read_bytes() == before
