"""Sign a release's folder, and verify it before it is served (OpenSSF model-signing, ECDSA P-256).

The private key and the signatures lie in NIGHTSHIFT_HOME and nowhere else; the key is made the first time that one is
needed. A release is trusted when its signature verifies against this home's public key or one in the project's
`keys/`.
"""

from __future__ import annotations

import os
from pathlib import Path

from nightshift.errors import ReleaseInvalid

PRIVATE, PUBLIC = "signing/private.pem", "signing/public.pem"


def sign(folder: Path, signature: Path, home: Path) -> None:
    """Sign every file of `folder`; the signature is a file elsewhere."""
    from model_signing import hashing, signing

    key = _key(home)
    signature.parent.mkdir(parents=True, exist_ok=True)
    draft = signature.with_name(f".{signature.name}.draft")
    config = signing.Config().use_elliptic_key_signer(private_key=str(key))
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False))
    config.sign(str(folder), str(draft))
    draft.replace(signature)


def verify(folder: Path, signature: Path, home: Path, keys: Path) -> None:
    """Raises ReleaseInvalid unless one of the known keys signed exactly these files."""
    from model_signing import hashing, verifying

    if not signature.is_file():
        do = "publish it here, or assign a release that was"
        raise ReleaseInvalid("it has no signature", str(signature), do)
    known = [home / PUBLIC, *sorted(keys.glob("*.pem"))]
    said = "no public key is known"
    for key in (one for one in known if one.is_file()):
        config = verifying.Config().use_elliptic_key_verifier(public_key=str(key))
        config.set_hashing_config(hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False))
        try:
            config.verify(str(folder), str(signature))
        except ValueError as error:  # what the library raises for a wrong key and for wrong files alike
            said = str(error).splitlines()[0]
        else:
            return
    raise ReleaseInvalid(f"its signature does not hold ({said})", str(folder), "assign another release")


def _key(home: Path) -> Path:
    """The private key; made with its public half when there is none."""
    private = home / PRIVATE
    if private.is_file():
        return private
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    made = ec.generate_private_key(ec.SECP256R1())
    private.parent.mkdir(parents=True, exist_ok=True)
    home.chmod(0o700)
    public = made.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    (home / PUBLIC).write_bytes(public)
    plain = made.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    handle = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    with os.fdopen(handle, "wb") as out:
        out.write(plain)
    return private
