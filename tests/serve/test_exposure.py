"""The endpoint starts with a certificate and its key, or says in one sentence what is wrong with them."""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec

from nightshift import params
from nightshift.errors import AccessDenied, ParamsError
from nightshift.serve import exposure
from nightshift.serve.server import Settings
from tests.conftest import ROOT

WRONG = {
    "no certificate": ("nope", "own.key", r"certificate: /.*/nope cannot be read \(no such file or directory\); put"),
    "no key": ("own.pem", "nope", r"key: /.*/nope cannot be read \(no such file or directory\); put it there"),
    "a folder": (".", "own.key", r"certificate: /.* cannot be read \(is a directory\); put it there"),
    "another's key": ("own.pem", "other.key", r"key: /.*/other\.key is not the key of /.*/own\.pem; name the key"),
    "no PEM": ("text", "own.key", r"certificate: /.*/text is no certificate in PEM; mend its name"),
    "empty": ("empty", "own.key", r"certificate: /.*/empty is no certificate in PEM; mend its name"),
    "two keys": ("own.key", "own.key", r"certificate: /.*/own\.key is no certificate in PEM; mend its name"),
    "two certificates": ("own.pem", "own.pem", r"key: /.*/own\.pem is no private key in PEM that can be used; name"),
    "a password": ("own.pem", "locked.key", r"key: /.*/locked\.key is no private key .*, without a password"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project's params.yaml beside certificates and keys."""
    shutil.copyfile(ROOT / params.FILE, tmp_path / params.FILE)
    certificate(tmp_path, "own")
    certificate(tmp_path, "other")
    key = form.load_pem_private_key((tmp_path / "own.key").read_bytes(), None)
    secret = form.BestAvailableEncryption(b"secret")
    locked = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, secret)
    (tmp_path / "locked.key").write_bytes(locked)
    (tmp_path / "text").write_text("no PEM")
    (tmp_path / "empty").write_text("")
    return tmp_path


def certificate(folder: Path, name: str) -> None:
    """NAME.pem, signed by itself, and NAME.key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    serial = x509.random_serial_number()
    made = x509.CertificateBuilder(who, who, key.public_key(), serial, now, now + timedelta(days=1))
    (folder / f"{name}.pem").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(form.Encoding.PEM))
    plain = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    (folder / f"{name}.key").write_bytes(plain)


def said(folder: Path, certificate: str, key: str) -> None:
    """Write both into params.yaml, and look whether they can be used."""
    values = {"serve.listen.tls": {"certificate": certificate, "key": key}}
    params.write(folder / params.FILE, values, "test")
    exposure.check(folder / params.FILE, Settings.read(folder).listen)


@pytest.mark.parametrize("name", WRONG)
def test_a_certificate_that_cannot_be_used_is_said_with_its_line(name: str, folder: Path) -> None:
    first, second, sentence = WRONG[name]
    with pytest.raises(ParamsError) as refused:
        said(folder, first, second)
    found = re.fullmatch(
        rf"(?P<file>.*)/params\.yaml:(?P<line>\d+): serve\.listen\.tls\.{sentence}.*\.", str(refused.value)
    )
    assert found, str(refused.value)
    line = (folder / params.FILE).read_text().splitlines()[int(found["line"]) - 1]
    assert f"{sentence.partition(':')[0]}:" in line


def test_a_certificate_and_its_key_can_be_used_wherever_one_stands(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    said(folder, "own.pem", "own.key")
    said(folder, str(folder / "own.pem"), "own.key")


def test_an_address_beyond_loopback_is_refused_with_its_line(folder: Path) -> None:
    params.write(folder / params.FILE, {"serve.listen.host": "0.0.0.0"}, "test")
    with pytest.raises(AccessDenied, match=r"params\.yaml:\d+: serve\.listen\.host 0\.0\.0\.0: keys would be sent"):
        exposure.check(folder / params.FILE, Settings.read(folder).listen)
