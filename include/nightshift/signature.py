"""Sign a release's folder, and verify it before it is served (OpenSSF model-signing, ECDSA P-256).

The private key and the signatures lie in NIGHTSHIFT_HOME and nowhere else; the key is made the first time that one is
needed. A release is trusted when its signature verifies against this home's public key or one in the project's
`keys/`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from nightshift import commit
from nightshift.errors import ReleaseInvalid

PRIVATE, PUBLIC = "signing/private.pem", "signing/public.pem"


def sign(folder: Path, signature: Path, home: Path) -> None:
    """Sign every file of `folder`; the signature is a file elsewhere."""
    from model_signing import hashing, signing

    key = _key(home)
    config = signing.Config().use_elliptic_key_signer(private_key=str(key))
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False))
    with tempfile.TemporaryDirectory() as scratch:
        config.sign(str(folder), f"{scratch}/signature")
        commit.file(signature, Path(scratch, "signature").read_bytes())


def verify(folder: Path, signature: Path, home: Path, keys: Path) -> None:
    """Raises ReleaseInvalid unless one of the known keys signed exactly these files."""
    from model_signing import hashing, verifying

    if not signature.is_file():
        do = "publish it here, or assign a release that was"
        raise ReleaseInvalid("it has no signature", str(signature), do)
    known = [home / PUBLIC, *sorted(keys.glob("*.pem"))]
    said = "no public key is known"
    for key in (one for one in known if one.is_file()):
        try:
            config = verifying.Config().use_elliptic_key_verifier(public_key=str(key))
            config.set_hashing_config(hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False))
            config.verify(str(folder), str(signature))
        except Exception as error:  # for a damaged key or signature the library raises what its parsers happen to
            said = " ".join([type(error).__name__, *str(error).splitlines()[:1]])
        else:
            return
    raise ReleaseInvalid(f"its signature does not hold ({said})", str(folder), "assign another release")


def _key(home: Path) -> Path:
    """The private key; made when there is none, and its public half too."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    private = home / PRIVATE
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
