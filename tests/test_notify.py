"""A message reaches people, is tried again while that may help, and no credential stands where others look."""

from __future__ import annotations

import base64
import datetime
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from nightshift import notify, params
from nightshift.errors import AccessDenied, ParamsError
from nightshift.notify import Credentials, Message
from nightshift.port import unused
from nightshift.watching import Notify
from tests.watch.sinks import mail, webhook

MESSAGE = Message("health-29000000-alert", "alert", "page", "Nightshift: health", "availability burns.", 1_800_000_000)
NONE = Credentials()


def to(port: int = 1, hook: int | None = None, **more: Any) -> Notify:
    address = {"host": "localhost", "port": port, "security": "plain", "sender": "night@example.org"}
    email = address | {"to": ["ada@example.org", "bob@example.org"]} | more
    url = {"url": f"http://127.0.0.1:{hook}/hook"} if hook else None
    return Notify.model_validate({"email": None if hook else email, "webhook": url})


class Waits(list[float]):
    """Stands for time.sleep."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def sent(settings: Notify, credentials: Credentials = NONE) -> tuple[dict[notify.Channel, str], Waits]:
    waits = Waits()
    failed = notify.send(MESSAGE, notify.channels(settings), settings, credentials, waits)
    return {channel: why.reason for channel, why in failed.items()}, waits


def test_a_mail_says_what_is_wrong_to_everyone_who_is_named() -> None:
    with mail() as sink:
        assert sent(to(sink.port)) == ({}, [])
    (letter,) = sink.mails
    assert (letter["Subject"], letter["From"]) == ("Nightshift: health", "night@example.org")
    assert letter["Message-ID"] == "<health-29000000-alert@example.org>"
    assert letter.get_payload() == "availability burns.\n"
    assert sink.recipients == [["ada@example.org", "bob@example.org"]]
    assert sink.logins == []


def test_a_webhook_gets_the_message_as_json_under_a_key() -> None:
    with webhook() as sink:
        assert sent(to(hook=sink.port), Credentials(token="t0ken")) == ({}, [])
    ((head, body),) = sink.calls
    assert (head["Authorization"], head["Idempotency-Key"]) == ("Bearer t0ken", MESSAGE.key)
    assert body == {
        "key": MESSAGE.key, "state": "alert", "severity": "page", "subject": "Nightshift: health",
        "text": "availability burns.", "time": 1_800_000_000,
    }  # fmt: skip


@pytest.mark.parametrize("answers", [[451], [450, 451, 452]])
def test_a_mail_server_that_is_busy_is_asked_again(answers: list[int]) -> None:
    with mail() as sink:
        sink.answers += [code for code in answers for _ in range(2)]  # for each of two recipients
        assert sent(to(sink.port)) == ({}, [1.0, 2.0, 4.0][: len(answers)])
    assert (len(sink.mails), sink.tries) == (1, len(answers) + 1)


@pytest.mark.parametrize("answers", [[503], [500, 429, 408]])
def test_a_webhook_that_is_busy_is_called_again(answers: list[int]) -> None:
    with webhook() as sink:
        sink.answers += answers
        assert sent(to(hook=sink.port)) == ({}, [1.0, 2.0, 4.0][: len(answers)])
    assert (len(sink.calls), sink.tries) == (1, len(answers) + 1)


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (401, 1), (302, 1), (503, 4)])
def test_what_does_not_take_it_is_said_and_asked_no_more_than_helps(status: int, tries: int) -> None:
    with webhook() as sink:
        sink.answers += [status] * 9
        failed, waits = sent(to(hook=sink.port))
    assert failed == {"webhook": f"the webhook answered {status}"}
    assert (sink.tries, len(waits)) == (tries, tries - 1)


def test_a_mail_that_nobody_takes_is_not_tried_again() -> None:
    with mail() as sink:
        sink.answers += [550, 550]
        failed, waits = sent(to(sink.port))
    assert failed == {"email": "the mail server takes no mail for them (550)"}
    assert waits == []


def test_one_who_is_not_taken_is_said_and_the_others_have_it_once(caplog: pytest.LogCaptureFixture) -> None:
    with mail() as sink:
        sink.answers += [550]
        assert sent(to(sink.port)) == ({}, [])
    assert sink.recipients == [["bob@example.org"]]
    assert "the mail server takes no mail for ada@example.org: Nightshift: health" in caplog.text


def test_who_does_not_answer_is_said_without_a_traceback() -> None:
    assert sent(to(unused()))[0] == {"email": "the mail server did not answer (ConnectionRefusedError)"}
    assert sent(to(hook=unused()))[0] == {"webhook": "the webhook did not answer (ConnectError)"}


def certificate(folder: Path) -> ssl.SSLContext:
    """A server's context with a certificate for localhost that nobody knows."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = serialization.PrivateFormat.PKCS8
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, private, plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_password_goes_only_to_a_server_whose_certificate_holds(
    security: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = certificate(tmp_path)
    who = Credentials(user="ada", password="s3cret")
    with mail(context, at_once=security == "tls") as sink:
        failed, waits = sent(to(sink.port, security=security), who)
        assert failed == {"email": "the mail server's certificate does not hold (self-signed certificate)"}
        assert (waits, sink.logins, sink.mails) == ([], [], [])
        sink.encrypted = False
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        assert sent(to(sink.port, security=security), who) == ({}, [])
    assert base64.b64decode(sink.logins[0]) == b"\0ada\0s3cret"
    assert len(sink.mails) == 1


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("email: null", 'email: {host: mail.example.org, port: 25, security: plain, sender: "a@b.c", to: ["a@b.c"]}',
         "notify.email: mail to mail.example.org would go in the clear; use starttls or tls"),
        ("email: null", 'email: {host: h, port: 587, security: starttls, sender: "nobody", to: ["a@b.c"]}',
         "notify.email.sender"),
        ("email: null", 'email: {host: h, port: 587, security: starttls, sender: "a@b.c", to: []}', "notify.email.to"),
        ("email: null", 'email: {host: h, port: 587, security: starttls, sender: "a@b.c", to: ["a@b.c"], password: x}',
         "notify.email.password: no such key"),
        ("webhook: null", 'webhook: {url: "http://hooks.example.org/x"}', "messages to hooks.example.org"),
        ("webhook: null", 'webhook: {url: "https://user:pass@hooks.example.org/x"}', "an address with a password"),
        ("webhook: null", 'webhook: {url: "https://hooks.example.org:abc/"}', "Port could not be cast"),
        ("webhook: null", 'webhook: {url: "hooks"}', "notify.webhook: it is no address"),
        ("retrain_on_alert: false", "retrain_on_alert: no", "watch.retrain_on_alert"),
    ],
)  # fmt: skip
def test_a_channel_that_would_tell_others_or_nobody_is_refused(
    old: str, new: str, sentence: str, root: Path, tmp_path: Path
) -> None:
    path = tmp_path / params.FILE
    text = (root / params.FILE).read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ParamsError) as refused:
        params.check(path)
    assert sentence in str(refused.value)
    assert f"{path}:" in str(refused.value)


def test_credentials_come_from_the_environment_or_a_file_that_nobody_else_reads(tmp_path: Path) -> None:
    assert Credentials.read(tmp_path, {}) == NONE
    path = tmp_path / notify.FILE
    path.write_text("# mail\nNIGHTSHIFT_SMTP_USER=ada\nNIGHTSHIFT_SMTP_PASSWORD=a=b\n")
    path.chmod(0o640)
    with pytest.raises(AccessDenied, match=r"notify\.env: others may read it; chmod 600"):
        Credentials.read(tmp_path, {})
    path.chmod(0o600)
    assert Credentials.read(tmp_path, {}) == Credentials("ada", "a=b")
    assert Credentials.read(tmp_path, {"NIGHTSHIFT_SMTP_PASSWORD": "c"}) == Credentials("ada", "c")


def test_an_address_that_is_a_secret_comes_with_the_credentials() -> None:
    settings = Notify.model_validate({"email": None, "webhook": {"url": None}})
    assert sent(settings)[0] == {"webhook": "no address is given: set NIGHTSHIFT_WEBHOOK_URL"}
    with webhook() as sink:
        url = f"http://127.0.0.1:{sink.port}/s3cret"
        assert sent(settings, Credentials(url=url)) == ({}, [])
    assert len(sink.calls) == 1
    told = sent(settings, Credentials(url="http://x.org/s3cret"))
    assert told[0] == {"webhook": "messages to x.org would go in the clear; use https"}


def test_a_trial_goes_to_every_channel_and_says_where_there_is_none() -> None:
    with pytest.raises(ParamsError, match="no channel is named"):
        notify.prove(Notify(email=None, webhook=None), NONE, 1)
    with webhook() as sink:
        assert notify.prove(to(hook=sink.port), NONE, 1) == {}
    assert "Nothing is wrong" in sink.calls[0][1]["text"]
