"""Variables of a stage that come from Airflow's secrets backend, and are repeated nowhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import unquote, unquote_plus, urlsplit

from airflow.sdk import Connection, Variable
from airflow.sdk.exceptions import AirflowNotFoundException, AirflowRuntimeError, ErrorType
from airflow.sdk.log import mask_secret

from dvc_engine.stage.outcome import Result, printable

SECRETIVE = re.compile(r"key|token|secret|pass|pwd?|pin|auth|cred|sign", re.IGNORECASE)  # in names of what is secret
LONGEST_WORD = 20  # letters; what is longer, and stands by itself in data, is no word of others
SHORTEST = 5  # letters of a part, as of what Airflow masks in its logs; a shorter one stands in other words too


class Unknown(Exception):
    """A variable or a connection that Airflow does not have."""


def secret(value: str) -> str:
    """A stage's variable: 'airflow://variables/NAME' and 'airflow://connections/ID' from Airflow's secrets backend.

    What comes from there is masked wherever Airflow logs it. Raises Unknown.
    """
    kind, _, name = value.removeprefix("airflow://").partition("/")
    if not value.startswith("airflow://") or kind not in ("variables", "connections"):
        return value
    try:
        found = str(Variable.get(name) if kind == "variables" else Connection.get(name).get_uri())
    except AirflowNotFoundException:
        raise Unknown(f"{value}: Airflow has no such connection") from None
    except AirflowRuntimeError as error:
        if error.error.error is not ErrorType.VARIABLE_NOT_FOUND:
            raise
        raise Unknown(f"{value}: Airflow has no such variable") from None
    mask_secret(found)
    return found


def found(variables: Mapping[str, str]) -> dict[str, str]:
    """A stage's variables with what stands in the secrets backend. Raises Unknown, with the variable's name."""
    known = {}
    for key, value in variables.items():
        try:
            known[key] = secret(value)
        except Unknown as error:
            raise Unknown(f"meta.airflow.env: {key} is {error}") from None
    return known


def hidden(result: Result, secrets: Sequence[str]) -> Result:
    """A result whose words show none of these, nor a part that says by itself what is secret."""
    shown = {*secrets, *(part for one in secrets for part in _parts(one))}
    known = sorted(filter(None, shown | set(map(printable, shown))), key=len, reverse=True)  # one is a part of another
    return replace(result, sentence=_without(result.sentence, known), report=_without(result.report, known))


def _parts(secret: str) -> set[str]:
    """A secret, and what stands in it, and in that: each as it stands there and as it is, where it is long enough."""
    found, left = set[str](), [secret]
    while left:
        one = left.pop()
        if len(one) >= SHORTEST and one not in found:
            found.add(one)
            left += _inner(one)
    return found


def _inner(text: str) -> Iterator[str]:
    """What JSON has that is secret, or the lines of a key, and user, password and values of a connection's URI."""
    with suppress(ValueError):
        said = json.loads(text)
        if isinstance(said, dict | list | str):
            yield from _of_json(said, not isinstance(said, dict))
            return
    yield from filter(str.strip, text.splitlines())
    with suppress(ValueError):
        said = urlsplit(text)
        for one in (said.username or "", said.password or ""):
            yield from (one, unquote(one))
        for pair in said.query.split("&"):
            _, _, value = pair.partition("=")
            yield from (value, unquote(value), unquote_plus(value))
        if said.netloc.endswith(":"):  # of a host that is said with its scheme, as in http://https://me:password@host
            yield text.partition("://")[2]


def _of_json(said: Any, secret: bool = False) -> Iterator[str]:
    """What data of JSON has under a name that secrets have, addresses, and texts that are too long for a word."""
    if isinstance(said, Mapping):
        for name, value in said.items():
            yield from _of_json(value, secret or bool(SECRETIVE.search(name)))
    elif isinstance(said, list):
        for value in said:
            yield from _of_json(value, secret)
    elif isinstance(said, str) and (secret or len(said) > LONGEST_WORD or "://" in said):
        yield said
    elif secret and type(said) in (int, float):
        yield str(said)


def _without(said: Any, secrets: Sequence[str]) -> Any:
    """Data of JSON whose texts, and names, show none of these."""
    if isinstance(said, str):
        for one in secrets:
            said = said.replace(one, "***")
    elif isinstance(said, Mapping):
        return {_without(key, secrets): _without(value, secrets) for key, value in said.items()}
    elif isinstance(said, list):
        return [_without(one, secrets) for one in said]
    return said
