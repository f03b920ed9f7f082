"""Sign a release's folder, and verify it before it is served (OpenSSF model-signing, ECDSA P-256).

The private key and the signatures lie in NIGHTSHIFT_HOME and nowhere else; the key is made the first time that one is
needed. A release is trusted when its signature verifies against this home's public key or one in the project's
`keys/`. A key that was replaced stays there as ID.pem, beside ID.json, which names the digests that it had signed until
then: these verify for good, and nothing else that is signed with it does. So a key that got lost, or into other hands,
costs no release, and makes none.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from nightshift import commit
from nightshift.errors import AccessDenied, ReleaseInvalid, SourceError

PRIVATE, PUBLIC = "signing/private.pem", "signing/public.pem"
ID_DIGITS = 16  # of a fingerprint, in the name of its files


def sign(folder: Path, signature: Path, home: Path) -> None:
    """Sign every file of `folder`; the signature is a file elsewhere. Raises AccessDenied when the key is lost."""
    from model_signing import hashing, signing

    key = _key(home)
    config = signing.Config().use_elliptic_key_signer(private_key=str(key))
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False))
    with tempfile.TemporaryDirectory() as scratch:
        config.sign(str(folder), f"{scratch}/signature")
        commit.file(signature, Path(scratch, "signature").read_bytes())


def verify(folder: Path, signature: Path, home: Path, keys: Path) -> str:
    """The fingerprint of the key that signed exactly these files.

    Raises ReleaseInvalid unless it is a known one, SourceError where the libraries that can tell are missing.
    """
    installed()
    if not signature.is_file():
        do = "`nightshift release sign VERSION --reason …`, or assign a release that was signed"
        raise ReleaseInvalid("it has no signature", str(signature), do)
    said, replaced = "no public key is known", ""
    for key in (one for one in [home / PUBLIC, *sorted(keys.glob("*.pem"))] if one.is_file()):
        try:
            _verify(folder, signature, key)
            found = fingerprint(key)
            signed = _signed(keys, found)
        except Exception as error:  # for a damaged key or signature the library raises what its parsers happen to
            said = " ".join([type(error).__name__, *str(error).splitlines()[:1]])
            continue
        if signed is None or commit.digest(folder) in signed:
            return found
        replaced = f"key {found[:ID_DIGITS]} was replaced before it signed this"
    raise ReleaseInvalid(f"its signature does not hold ({replaced or said})", str(folder), "assign another release")


def installed() -> None:
    """Raises SourceError where a library that signatures are verified with is missing: that is no forgery."""
    for name in ("cryptography", "model_signing"):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            what = f"{error.name} is not installed, and no signature is verified without it"
            do = "use a Python that has the packages of requirements.txt, which a bundle may bring as wheels"
            raise SourceError(what, sys.executable, do) from None


def publish(home: Path, keys: Path) -> str:
    """Put the public half of the signing key into `keys`; its fingerprint. Makes the key where there is none."""
    _key(home)
    found = fingerprint(home / PUBLIC)
    commit.file(keys / f"{found[:ID_DIGITS]}.pem", (home / PUBLIC).read_bytes())
    return found


def rotate(home: Path, keys: Path, signed: Iterable[str]) -> tuple[str | None, str]:
    """Replace the signing key; the fingerprints of the one before, if any, and of the new one.

    The one before is trusted for the digests `signed` from now on, and for nothing else. A kill leaves one that is
    trusted so already, and a repetition ends it.
    """
    before = current(home)
    if before:
        commit.file(keys / f"{before[:ID_DIGITS]}.pem", (home / PUBLIC).read_bytes())
        commit.file(_note(keys, before), commit.dumps({"signed": sorted(signed)}))
    for half in (PUBLIC, PRIVATE):  # the private half alone makes the public one anew, and not the other way round
        with suppress(FileNotFoundError):
            (home / half).unlink()
    return before, publish(home, keys)


def current(home: Path) -> str | None:
    """The fingerprint of the key that signs here; None where there is none yet. Raises AccessDenied."""
    try:
        return fingerprint(home / PUBLIC) if (home / PUBLIC).is_file() else None
    except ValueError:
        do = "restore it, or remove it: the private half makes it anew"
        raise AccessDenied("it is no public key", str(home / PUBLIC), do) from None


def fingerprint(public: Path) -> str:
    """sha256 of a public key's SubjectPublicKeyInfo (RFC 7469), in hex. Raises ValueError where there is no key."""
    from cryptography.hazmat.primitives import serialization as form

    key = form.load_pem_public_key(public.read_bytes())
    told = key.public_bytes(form.Encoding.DER, form.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(told).hexdigest()


def _verify(folder: Path, signature: Path, key: Path) -> None:
    from model_signing import hashing, verifying

    config = verifying.Config().use_elliptic_key_verifier(public_key=str(key))
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False))
    config.verify(str(folder), str(signature))


def _signed(keys: Path, found: str) -> list[str] | None:
    """The digests that a replaced key had signed; None for a key that was not replaced."""
    note = _note(keys, found)
    said: Any = json.loads(note.read_bytes())["signed"] if note.exists() else None
    return None if said is None else list(said)


def _note(keys: Path, found: str) -> Path:
    return keys / f"{found[:ID_DIGITS]}.json"


def _key(home: Path) -> Path:
    """The private key; made when there is none, and its public half too. Raises AccessDenied when it was lost."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    private = home / PRIVATE
    if not private.is_file() and (home / PUBLIC).is_file():
        do = "restore it from a backup, or type `nightshift release rotate-key`: what it signed stays valid"
        raise AccessDenied("the signing key is lost", str(private), do)
    if not private.is_file():
        made = ec.generate_private_key(ec.SECP256R1())
        plain = made.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
        home.mkdir(parents=True, exist_ok=True)
        home.chmod(0o700)
        commit.secret(private, plain, 0o400)
    if not (home / PUBLIC).is_file():
        half = form.load_pem_private_key(private.read_bytes(), None).public_key()
        commit.file(home / PUBLIC, half.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo))
    return private
