"""Ports on this machine: the one that was asked for, whether it is free, and one that nothing listens on."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from contextlib import suppress

from nightshift.errors import AccessDenied, ParamsError, PortInUse

LOWEST, HIGHEST, TRIES = 20_000, 32_700, 100


def asked(variable: str, default: int, environ: Mapping[str, str] = os.environ) -> int:
    """A port from the environment. Raises ParamsError for what is none."""
    said = environ.get(variable, str(default))
    if not said.isdigit() or not 1 <= int(said) <= 65_534:
        raise ParamsError(f"{said!r} is not a port", variable, "give a number from 1 to 65534")
    return int(said)


def free(port: int, do: str) -> None:
    """Raises PortInUse when something listens there, AccessDenied when one may not."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except PermissionError:
            raise AccessDenied("only root may listen there", f"127.0.0.1:{port}", "choose a port over 1023") from None
        except OSError:
            raise PortInUse("something else listens there", f"127.0.0.1:{port}", do) from None


def unused(count: int = 1) -> int:
    """The first of `count` neighbouring ports that nothing listens on now.

    From below the range that outgoing connections get theirs from (32768 on, ip(7)): a port of that range may be taken
    by one, between this look and the server's start. Raises PortInUse when a hundred tries found none.
    """
    for _ in range(TRIES):
        first = LOWEST + secrets.randbelow(HIGHEST - count - LOWEST)  # a seed of random would give all the same
        with suppress(PortInUse):
            for one in range(first, first + count):
                free(one, "")
            return first
    raise PortInUse("nothing is free there", f"127.0.0.1:{LOWEST} to {HIGHEST}", "stop something that listens there")
