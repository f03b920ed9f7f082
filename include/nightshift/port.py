"""Ports on this machine: the one that was asked for, whether it is free, and one that nothing listens on."""

from __future__ import annotations

import os
import socket

from nightshift.errors import AccessDenied, ParamsError, PortInUse


def asked(variable: str, default: int) -> int:
    """A port from the environment. Raises ParamsError for what is none."""
    said = os.environ.get(variable, str(default))
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


def unused() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
