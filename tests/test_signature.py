"""A signing key may be replaced, lost or stolen: what it signed before stays valid, and it makes nothing new."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from nightshift import commit, signature
from nightshift.errors import AccessDenied, ReleaseInvalid


@dataclass
class Signer:
    """A home, the project's `keys/`, and releases."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "var"

    @property
    def keys(self) -> Path:
        return self.folder / "keys"

    def release(self, name: str) -> Path:
        """A release that is signed with today's key."""
        with commit.folder(self.folder / name) as draft:
            (draft / "card.md").write_text(name)
        signature.sign(self.folder / name, self.signed(name), self.home)
        return self.folder / name

    def signed(self, name: str) -> Path:
        return self.home / "releases" / name / "model.sig"

    def verify(self, name: str, by: Path | None = None) -> str:
        return signature.verify(self.folder / name, self.signed(by.name if by else name), self.home, self.keys)

    def rotate(self, *kept: str) -> tuple[str | None, str]:
        return signature.rotate(self.home, self.keys, [commit.digest(self.folder / name) for name in kept])


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    made = Signer(tmp_path)
    made.release("old")
    return made


def test_what_a_replaced_key_signed_stays_valid(signer: Signer) -> None:
    first = signer.verify("old")
    before, after = signer.rotate("old")
    signer.release("new")
    assert (signer.verify("old"), signer.verify("new")) == (first, after) == (before, after)
    assert sorted(one.name for one in signer.keys.iterdir()) == sorted(
        [f"{first[:16]}.json", f"{first[:16]}.pem", f"{after[:16]}.pem"]
    )


def test_a_replaced_key_makes_no_new_release(signer: Signer, tmp_path: Path) -> None:
    stolen = tmp_path / "stolen"
    shutil.copytree(signer.home / "signing", stolen / "signing")
    signer.rotate("old")
    forged = signer.release("forged")
    signature.sign(forged, signer.signed("forged"), stolen)
    with pytest.raises(ReleaseInvalid, match=r"key [0-9a-f]{16} was replaced before it signed this"):
        signer.verify("forged")
    shutil.copyfile(stolen / signature.PUBLIC, signer.home / signature.PUBLIC)  # as on a machine that was not told
    with pytest.raises(ReleaseInvalid, match="was replaced before"):
        signer.verify("forged")
    signer.verify("old")


def test_a_key_that_was_taken_away_from_is_trusted_for_nothing(signer: Signer) -> None:
    signer.rotate()
    with pytest.raises(ReleaseInvalid, match="was replaced before it signed this"):
        signer.verify("old")


def test_a_lost_key_is_said_and_replaced(signer: Signer) -> None:
    (signer.home / signature.PRIVATE).unlink()
    with pytest.raises(AccessDenied, match=r"private\.pem: the signing key is lost; .*rotate-key"):
        signer.release("new")
    signer.verify("old")
    signer.rotate("old")
    signer.release("new")
    signer.verify("old")
    signer.verify("new")


def test_another_home_verifies_with_the_projects_keys(signer: Signer, tmp_path: Path) -> None:
    found = signature.publish(signer.home, signer.keys)
    elsewhere = tmp_path / "elsewhere"
    assert signature.verify(tmp_path / "old", signer.signed("old"), elsewhere, signer.keys) == found
    assert not elsewhere.exists()


@pytest.mark.parametrize("damage", ["", "[]", "{}", "{"])
def test_a_damaged_note_about_a_key_trusts_it_for_nothing(damage: str, signer: Signer) -> None:
    before, _ = signer.rotate("old")
    (signer.keys / f"{str(before)[:16]}.json").write_text(damage)
    with pytest.raises(ReleaseInvalid, match="signature does not hold"):
        signer.verify("old")


def test_an_older_signature_does_not_hold_for_a_newer_release(signer: Signer) -> None:
    signer.release("new")
    with pytest.raises(ReleaseInvalid, match="signature does not hold"):
        signer.verify("new", by=Path("old"))


def test_a_kill_amid_a_rotation_is_ended_by_a_repetition(signer: Signer, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(signature, "publish", die)
        with pytest.raises(KeyboardInterrupt):
            signer.rotate("old")
    assert not (signer.home / signature.PRIVATE).exists()
    signer.rotate("old")
    signer.release("new")
    signer.verify("old")
    signer.verify("new")
