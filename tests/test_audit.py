"""What stands in the audit stays as it was written, or it is seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from nightshift import audit
from nightshift.errors import AccessDenied


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
    ],
    ids=["a line was changed", "one was taken out", "the first was", "their order"],
)
def test_a_changed_audit_is_seen(home: Path, line: int, change: object) -> None:
    path = home / audit.FILE
    assert callable(change)
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    with pytest.raises(AccessDenied, match=rf"audit\.jsonl:{line}: the audit was changed"):
        audit.verify(home)
