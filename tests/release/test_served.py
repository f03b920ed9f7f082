"""What a pattern derives is what serves: the private API and the internal network answer over TLS, and only so."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from nightshift import params
from nightshift.errors import PortInUse
from nightshift.port import unused
from nightshift.serve import server
from tests.release.project import Released

ANSWERS = {
    "private-api": {"asked_from": "internet", "access": "strict", "private_architecture": True},
    "internal-network": {"asked_from": "network", "access": "personal", "private_architecture": False},
}
WITHIN_S = 120


def certificate(folder: Path) -> Path:
    """A certificate for this machine's loopback, signed by itself; its key beside it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    today = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number()).not_valid_before(today - datetime.timedelta(hours=1))
    made = made.not_valid_after(today + datetime.timedelta(days=1))
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = made.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    form = serialization.Encoding.PEM
    private = key.private_bytes(form, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    folder.mkdir(parents=True)
    (folder / "key.pem").write_bytes(private)
    (folder / "certificate.pem").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(form))
    return folder / "certificate.pem"


@contextmanager
def served(project: Released, port: int) -> Iterator[subprocess.Popen[str]]:
    """The endpoint of a project, until the block ends."""
    env = os.environ | {"PYTHONPATH": str(project.folder / "include")}
    command = [sys.executable, "-m", "nightshift.cli", "serve", "--port", str(port)]
    with subprocess.Popen(command, cwd=project.folder, env=env, stderr=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.terminate()


@pytest.mark.long
@pytest.mark.parametrize("pattern", ANSWERS)
def test_a_pattern_that_is_written_serves(pattern: str, project: Released) -> None:
    answers = {f"deployment.{key}": value for key, value in ANSWERS[pattern].items()}
    params.write(project.folder / params.FILE, answers | {"deployment.context": 1024, "system.context": 1024}, "test")
    said = project.cli("pattern", "--write")
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith(f"# {pattern}: ")
    trusted = certificate(project.folder / "var" / "tls")
    key = project.cli("keys", "create", "--owner", "ann").stdout.strip()
    port = unused()
    with served(project, port) as child:
        assert child.stderr
        assert child.stderr.readline().startswith(f"serve: https://0.0.0.0:{port}/v1")
        context = ssl.create_default_context(cafile=str(trusted))
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=context, timeout=60) as client:
            answer = asked(client, key)
            assert answer.json()["nightshift"]["version"] == "v0.1.0"
            assert client.post("/v1/chat/completions", json={}).status_code == 401
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=5)


def asked(client: httpx.Client, key: str) -> httpx.Response:
    """The answer to a question, as soon as the endpoint is ready."""
    body = {"model": "nightshift", "messages": [{"role": "user", "content": "What is oiled every Monday?"}]}
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if client.get("/readyz").is_success:
                break
        time.sleep(0.2)
    said = client.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"})
    assert said.status_code == 200, said.text
    return said


def test_a_home_has_one_endpoint(tmp_path: Path) -> None:
    home, other = tmp_path / "var", tmp_path / "other"
    with server._alone(home), server._alone(other), pytest.raises(PortInUse) as refused, server._alone(home):
        raise AssertionError
    assert str(refused.value).startswith(f"{home}: another endpoint serves from this home; stop it, or give this one a")
    with server._alone(home):  # nothing of the first is left
        pass


@pytest.mark.long
def test_a_second_serve_is_refused_and_the_first_goes_on(project: Released) -> None:
    first, second = unused(2), unused(2)
    with served(project, first) as child:
        assert child.stderr
        assert child.stderr.readline().startswith(f"serve: http://127.0.0.1:{first}/v1")
        ended = project.cli("serve", "--port", str(second))
        assert ended.returncode == 19
        assert "another endpoint serves from this home" in ended.stderr
        assert child.poll() is None
        child.kill()
    with served(project, second) as child:
        assert child.stderr
        assert child.stderr.readline().startswith(f"serve: http://127.0.0.1:{second}/v1")


def test_without_tls_or_a_proxy_it_does_not_listen_to_others(project: Released) -> None:
    params.write(project.folder / params.FILE, {"serve.listen.host": "0.0.0.0"}, "test")
    ended = project.cli("serve", "--port", str(unused()))
    assert ended.returncode == 22
    assert "keys would be sent there in the clear" in ended.stderr
