"""Whether the endpoint may listen where params.yaml says, and with the certificate that it names.

Both are looked at before anything is served: `nightshift check` says the same as `serve`. Nothing is listened to and no
name is looked up.
"""

from __future__ import annotations

import ipaddress
import ssl
from pathlib import Path

from nightshift import params
from nightshift.errors import AccessDenied, ParamsError
from nightshift.serving import Listen, Tls

MEND = "mend its name, or the file"


def check(file: Path, listen: Listen) -> None:
    """Raises AccessDenied, ParamsError for what `serve` does not do; `file` is the params.yaml that says it."""
    allowed(listen, f"{params.where(file, 'serve', 'listen', 'host')}: serve.listen.host {listen.host}")
    if listen.tls is not None:
        _certified(file, listen.tls)


def allowed(listen: Listen, where: str = "serve.listen.host") -> None:
    """Raises AccessDenied for an address beyond loopback that keys would be sent to in the clear."""
    try:
        loopback = ipaddress.ip_address(listen.host).is_loopback
    except ValueError:
        loopback = listen.host == "localhost"
    if not loopback and listen.tls is None and not listen.behind_proxy:
        do = "give serve.listen.tls, or name in serve.listen.behind_proxy the proxy that ends TLS"
        raise AccessDenied("keys would be sent there in the clear", where, do)


def _certified(file: Path, tls: Tls) -> None:
    """Raises ParamsError unless both files can be read, and the key is the certificate's."""
    _readable(file, "certificate", tls.certificate)
    _readable(file, "key", tls.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(tls.certificate, tls.key, password=lambda: "")  # without one OpenSSL asks for it
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            what = f"{tls.key} is not the key of {tls.certificate}"
            raise _refused(file, "key", what, "name the key that the certificate was made for") from None
        if not _certificates(tls.certificate):
            raise _refused(file, "certificate", f"{tls.certificate} is no certificate in PEM", MEND) from None
        do = "name the certificate's own, without a password"
        raise _refused(file, "key", f"{tls.key} is no private key in PEM that can be used", do) from None


def _readable(file: Path, key: str, path: str) -> None:
    try:
        Path(path).read_bytes()
    except OSError as error:
        said = str(error.strerror).lower()
        raise _refused(file, key, f"{path} cannot be read ({said})", "put it there, or mend its name") from None


def _certificates(path: str) -> bool:
    """Whether a file holds certificates in PEM."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        return False
    return True


def _refused(file: Path, key: str, what: str, do: str) -> ParamsError:
    place = params.where(file, "serve", "listen", "tls", key)
    return ParamsError(f"serve.listen.tls.{key}: {what}", place, do)
