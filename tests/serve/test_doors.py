"""No door is open without a key: every address by every method and every trick, and every wrong way to say a key."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from nightshift.serve import keys as keys_module
from nightshift.serve.admin import ADMIN
from nightshift.serve.routes import PUBLIC
from tests import models
from tests.conftest import ROOT
from tests.serve.mocked import WIDE
from tests.serve.scripted import ROWS, Endpoint, chat, endpoint

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get", "X")
OPEN = {"/healthz", "/readyz"}  # the addresses that need no key
TRICKS: list[Callable[[str], str]] = [
    str,
    lambda path: path + "/",
    lambda path: "/" + path,
    lambda path: path.replace("/", "//"),
    lambda path: path + "/..;/healthz",
    lambda path: "/healthz/../" + path.lstrip("/"),
    lambda path: "/healthz/%2e%2e" + path,
    lambda path: path.upper(),
    lambda path: path.replace("v1", "%761"),
    lambda path: path + "%00",
    lambda path: path + "?x=/healthz",
    lambda path: path + ";jsessionid=1",
    lambda path: path + "%2f",
    lambda path: "/./" + path.lstrip("/"),
    lambda path: path.replace("/", "\\"),
    lambda path: "http://127.0.0.1" + path,
    lambda path: path + "/.%2e/readyz",
]
SIDE_DOORS = ("/invocations", "/pause", "/score", "/update_weights", "/v2/embed", "/docs", "/debug", "/v1/engines", "/")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    folder = tmp_path_factory.mktemp("doors")
    system = models.system(folder / "plain", ROOT, ROWS)
    many = {"auth_failures_a_minute": 10**6, "connections_an_address": 200, "key": WIDE}
    with endpoint(folder / "served", system, slots=4, **many) as one:
        yield one


class Raw:
    """A connection that sends an address as it is."""

    def __init__(self, base: str) -> None:
        self.address = base.removeprefix("http://").split("/")[0]
        self.open: http.client.HTTPConnection | None = None

    def ask(self, method: str, path: str, headers: list[tuple[str, bytes]], body: bytes = b"") -> tuple[int, bytes]:
        """Status and body."""
        one = self.open = self.open or http.client.HTTPConnection(self.address, timeout=10)
        one.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers:
            one.putheader(name, value)
        one.putheader("Content-Length", str(len(body)))
        one.endheaders(body or None)
        said = one.getresponse()
        read = said.read()
        if said.will_close:
            one.close()
            self.open = None
        return said.status, read


@pytest.mark.parametrize("where", ["public", "admin"])
def test_no_address_answers_without_a_key_by_any_method_or_trick(running: Endpoint, where: str) -> None:
    entries = PUBLIC if where == "public" else ADMIN
    raw = Raw(running.url if where == "public" else running.admin)
    paths = [entry.path.replace("{model}", "nightshift").replace("{id}", "a" * 10) for entry in [*PUBLIC, *ADMIN]]
    known = {entry.path for entry in entries if not entry.scopes}
    asked = 0
    for path in dict.fromkeys([*paths, *SIDE_DOORS]):
        for trick in TRICKS:
            for method in METHODS if trick is str else METHODS[:3]:
                at = trick(path)
                status, read = raw.ask(method, at, [])
                asked += 1
                if status == 200:  # what needs no key, asked as it is, with words behind it that nobody reads
                    assert method in ("GET", "HEAD") and at.partition("?")[0].removeprefix("http://127.0.0.1") in known
                    assert len(read) < 20
                    continue
                assert status in (400, 401, 404, 405) or at.endswith("readyz"), (method, at, status)
                assert method == "HEAD" or set(json.loads(read)) in ({"error"}, {"ready"})
    assert asked > 1000
    assert known == ({"/healthz", "/readyz"} if where == "public" else {"/healthz"})


def parted(key: str) -> list[str]:
    """ns, environment, id, secret, checksum: a secret may hold an underscore."""
    found = keys_module.FORM.fullmatch(key)
    assert found
    return ["ns", *found.groups()]


def mutations(key: str) -> list[list[tuple[str, bytes]]]:
    """Eighty wrong ways to give a key: as fields of a header."""
    head, _, check = key.rpartition("_")
    parts = parted(key)
    other = "A" if key[30] != "A" else "B"
    wrong = [
        *("", " ", "Bearer", "Bearer ", "Bearer  ", "bearer", "Basic", f"Basic {key}", f"Token {key}", f"Digest {key}"),
        *(key, f"Bearer{key}", f"Bearer:{key}", f"Bearer={key}", f"Bearer,{key}", f"Bearer\t\t{key[:-1]}"),
        *(f"Bearer {key} {key}", f"Bearer {key},{key}", f"Bearer {key};", f'Bearer "{key}"', f"Bearer '{key}'"),
        *(
            f"Bearer {key}\\",
            f"Bearer {key}/",
            f"Bearer {key}\t.",
            f"Bearer {key}%00",
            f"Bearer {key}=",
            f"Bearer +{key}",
        ),
        *(
            f"Bearer {key.upper()}",
            f"Bearer {key.swapcase()}",
            f"Bearer {key[::-1]}",
            f"Bearer {key[:-1]}",
            f"Bearer {key}0",
        ),
        *(
            f"Bearer {key[1:]}",
            f"Bearer {head}",
            f"Bearer {head}_",
            f"Bearer {head}_000000",
            f"Bearer {head}_{check[::-1]}",
        ),
        *(f"Bearer {key[:30]}{other}{key[31:]}", f"Bearer {parts[0]}_{parts[1]}_aaaaaaaaaa_{parts[3]}_{parts[4]}"),
        *(f"Bearer ns_prod_{parts[2]}_{parts[3]}_{parts[4]}", f"Bearer sk_{key[3:]}", f"Bearer {'_'.join(parts[:3])}"),
        *(
            f"Bearer {parts[2]}",
            f"Bearer {parts[3]}",
            f"Bearer {parts[2]}:{parts[3]}",
            "Bearer null",
            "Bearer undefined",
        ),
        *("Bearer true", "Bearer 0", "Bearer *", "Bearer %", "Bearer _", "Bearer ns_local_%_%_%", "Bearer ns_local___"),
        *("Bearer ' or 1=1 --", "Bearer ns_local_' or ''='", 'Bearer " or ""="', "Bearer 1; drop table keys; --"),
        *(f"Bearer ns_local_{parts[2]}' -- _{parts[3]}_{parts[4]}", "Bearer {{7*7}}", "Bearer ${jndi:ldap://x}"),
        *("Bearer ../../var/first.key", "Bearer file:///etc/passwd", "Bearer " + "A" * 4000, "Bearer " + "ns_" * 1000),
        *(
            "Bearer eyJhbGciOiJub25lIn0.e30.",
            "Bearer [object Object]",
            "Bearer None",
            f"Negotiate {key}",
            f"ApiKey {key}",
        ),
    ]
    made: list[list[tuple[str, bytes]]] = [[("Authorization", one.encode("latin-1"))] for one in wrong]
    good = f"Bearer {key}".encode()
    made += [
        [],
        [("Authorization", good), ("Authorization", good)],
        [("Authorization", good), ("authorization", b"Bearer x")],
        [("Authorization", b"Bearer \xff\xfe" + key.encode())],
        [("Authorization", "Bearer ｎｓ＿".encode() + key[3:].encode())],
        [("Authorization", b"Bearer \xe2\x80\x8b" + key.encode())],
        [("Authorisation", good)],
        [("Proxy-Authorization", good)],
        [("X-Api-Key", key.encode())],
        [("Api-Key", key.encode())],
        [("Cookie", b"authorization=" + good)],
    ]
    return made


def test_every_wrong_way_to_say_a_key_is_refused_alike_and_repeats_nothing(running: Endpoint) -> None:
    raw, body, before = Raw(running.url), json.dumps(chat("Hello")).encode(), len(running.script.asked)
    json_body = ("Content-Type", b"application/json")
    asked = mutations(running.key)
    said = [raw.ask("POST", "/v1/chat/completions", [json_body, *one], body) for one in asked]
    assert len(asked) >= 80
    assert {status for status, _ in said} == {401}
    assert len({read for _, read in said}) == 2  # no key, and one that is not valid: whatever is wrong with it
    assert not [read for _, read in said if parted(running.key)[3].encode() in read]
    assert len(running.script.asked) == before
    good = ("Authorization", f"bearer {running.key}".encode())
    assert raw.ask("POST", "/v1/chat/completions", [json_body, good], body)[0] == 200  # they were wrong by one thing


def test_an_unknown_id_takes_the_work_of_a_known_one(running: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: as many keyed hashes under as many peppers."""
    counted: list[int] = []
    whole = keys_module._hash
    monkeypatch.setattr(keys_module, "_hash", lambda *words: counted.append(1) or whole(*words))
    work = []
    for wrong in (_with(running.key, 2, "a" * 10), _with(running.key, 3, "A" * 43)):
        counted.clear()
        assert running.keys.check(wrong, time.time()) is None
        work.append(len(counted))
    assert work == [1, 1]


def _with(key: str, place: int, part: str) -> str:
    """A key with another part, and the checksum of that."""
    parts = parted(key)
    parts[place] = part
    head = "_".join(parts[:4])
    return f"{head}_{keys_module.checksum(head)}"


def test_a_key_is_rotated_under_load_and_nobody_is_refused(running: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both secrets hold while they overlap, in every request; the old one in none after that."""
    first = running.made("models:read")
    known, over = [first], threading.Event()
    seen: list[tuple[str, int]] = []

    def ask() -> None:
        raw = Raw(running.url)
        while not over.is_set():
            for key in list(known):
                seen.append((key, raw.ask("GET", "/v1/models", [("Authorization", f"Bearer {key}".encode())])[0]))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for one in threads:
        one.start()
    _until(lambda: len(seen) > 100)
    second = running.keys.rotate(first.split("_")[2], 1, 30, time.time())
    known.append(second)
    at = len(seen)
    _until(lambda: len(seen) > at + 400)
    over.set()
    for one in threads:
        one.join()
    assert {status for _, status in seen} == {200}
    assert {key for key, _ in seen} == {first, second}
    now = time.time()
    monkeypatch.setattr(running.front, "wall", lambda: now + 3601)
    head = {key: [("Authorization", f"Bearer {key}".encode())] for key in known}
    assert [Raw(running.url).ask("GET", "/v1/models", head[key])[0] for key in known] == [401, 200]


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)
