"""The decision table, held against golden answers: each answer changes something, and contradictions are refused."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ruamel.yaml import YAML

from nightshift import capacity, params
from nightshift.answer import System
from nightshift.cli.deployment import _engines_that_fit
from nightshift.deployment import Deployment
from nightshift.engine import TRAITS
from nightshift.errors import ParamsError
from nightshift.place import Place
from nightshift.release import pattern
from nightshift.release.pattern import Line, Table, derive
from nightshift.serve.pool import room
from tests.conftest import ROOT
from tests.release.project import Released

TABLE = Table.read(ROOT / pattern.TABLE)
BUSY = {"days": ["mon", "tue", "wed", "thu", "fri"], "from_hour": 8, "to_hour": 18, "share": 0.8}
TRAFFIC = {"users": 50, "requests_a_day": 9000, "seconds_an_answer": 4.0, "busy": BUSY}
BASE: dict[str, Any] = {
    "asked_from": "network", "waits": True, "access": "personal", "proxies": [], "traffic": TRAFFIC, "context": 2048,
    "private_architecture": False,
}  # fmt: skip


def lines(
    device: str = "cpu", fit: int | None = None, traffic: dict[str, Any] | None = None, **more: Any
) -> list[Line]:
    said = BASE | {"traffic": TRAFFIC | (traffic or {})} | more
    return derive(TABLE, Deployment.model_validate(said), device, 4096, fit)


def derived(**more: Any) -> dict[str, Any]:
    return {one.key: one.value for one in lines(**more)}


TLS = {"certificate": "var/tls/certificate.pem", "key": "var/tls/key.pem"}
INTERNAL = {
    "pattern": "internal-network",
    "serve.listen.host": "0.0.0.0",
    "serve.listen.tls": TLS,
    "serve.listen.behind_proxy": [],
    "serve.engine.kind": "openvino",
    "serve.warm.least": 1,
    "serve.warm.most": 2,
    "serve.rollout.strategy": "canary",
    "serve.rails.personal_in": "mask",
    "serve.limits.auth_failures_a_minute": 10,
    "serve.limits.connections_an_address": 64,
    "serve.limits.queue": 5,
    "serve.limits.key.concurrency": 2,
    "serve.limits.key.requests_a_minute": 30,
    "serve.limits.key.tokens_a_minute": 30 * 2048,
    "serve.limits.part_bytes": 32_768,
    "serve.limits.body_bytes": 131_072,
    "serve.limits.first_token_s": 30.0,
    "serve.limits.total_s": 120.0,
    "keys.owner": "person",
    "keys.days": 30,
    "keys.scopes": ["infer:chat", "models:read"],
    "environments.approvals": "prod: 0",
    "models.says": ["id", "context_window", "digest", "base", "licence"],
    "card": "whole",
    "quantisation": "none",
    "delivery": "registry",
}
LOCAL = {"serve.listen.host": "127.0.0.1", "serve.listen.tls": None, "serve.rollout.strategy": "blue-green"}
GOLDEN: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "internal network": ({}, INTERNAL),
    "private API": (
        {"asked_from": "internet", "access": "strict", "private_architecture": True},
        INTERNAL | {
            "pattern": "private-api", "serve.limits.connections_an_address": 20,
            "serve.limits.auth_failures_a_minute": 5, "serve.rails.personal_in": "refuse", "keys.days": 7,
            "keys.scopes": ["infer:chat"], "environments.approvals": "staging: 0, prod: 1",
            "models.says": ["id", "context_window"], "card": "public",
        },
    ),
    "air-gapped": ({"asked_from": "offline"}, INTERNAL | LOCAL | {"pattern": "air-gapped", "delivery": "bundle"}),
    "edge": (
        {"asked_from": "device", "access": "shared", "fit": 0},
        INTERNAL | LOCAL | {
            "pattern": "edge", "delivery": "bundle", "quantisation": "int8", "keys.owner": "program", "keys.days": 90,
            "serve.warm.most": 1,
            "serve.limits.key.concurrency": 50, "serve.limits.key.requests_a_minute": 120,
            "serve.limits.key.tokens_a_minute": 120 * 2048,
        },
    ),
    "batch": (
        {"waits": False},
        INTERNAL | LOCAL | {
            "pattern": "batch", "serve.rollout.strategy": "immediate", "serve.warm.most": 1,
            "serve.limits.queue": 4, "batch.starts": "0 18 * * *",
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_the_answers_of_a_pattern_give_its_configuration(name: str) -> None:
    answers, wanted = GOLDEN[name]
    assert derived(**answers) == wanted


# one answer that changes → what changes with it
FLIPS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "asked from": ({"asked_from": "offline"}, {"pattern": "air-gapped", "serve.listen.tls": None}),
    "waits": ({"waits": False}, {"pattern": "batch", "batch.starts": "0 18 * * *"}),
    "access, shared": ({"access": "shared"}, {"keys.owner": "program", "keys.days": 90}),
    "access, strict": ({"access": "strict"}, {"keys.days": 7, "environments.approvals": "staging: 0, prod: 1"}),
    "proxies": ({"proxies": ["10.0.0.1"]}, {"serve.listen.tls": None, "serve.listen.behind_proxy": ["10.0.0.1"]}),
    "privacy": ({"private_architecture": True}, {"models.says": ["id", "context_window"], "card": "public"}),
    "context": (
        {"context": 4096},
        {"serve.limits.part_bytes": 65_536, "serve.limits.first_token_s": 41.0, "serve.limits.total_s": 164.0},
    ),
    "users": ({"traffic": {"users": 2}}, {"serve.limits.key.requests_a_minute": 60}),
    "requests": ({"traffic": {"requests_a_day": 90_000}}, {"serve.warm.least": 3, "serve.warm.most": 12}),
    "seconds": ({"traffic": {"seconds_an_answer": 1.0}}, {"serve.limits.queue": 10}),
    "no busy hours": ({"traffic": {"busy": None}}, {"serve.warm.least": 1, "serve.warm.most": 1}),
    "busier hours": ({"traffic": {"busy": BUSY | {"share": 1.0}}}, {"serve.warm.least": 1, "serve.warm.most": 2}),
    "shorter hours": ({"traffic": {"busy": BUSY | {"from_hour": 16}}}, {"serve.warm.least": 1, "serve.warm.most": 6}),
    "device": ({"device": "cuda"}, {"serve.engine.kind": "vllm", "serve.warm.most": 1}),
}


@pytest.mark.parametrize("name", FLIPS)
def test_each_answer_changes_something(name: str) -> None:
    answer, wanted = FLIPS[name]
    now = derived(**answer)
    assert {key: now[key] for key in wanted} == wanted
    assert now != INTERNAL or name == "busier hours"


CONTRADICTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "internet, nobody waits": ({"asked_from": "internet", "waits": False}, "nobody waits for their answers; say"),
    "internet, shared": ({"asked_from": "internet", "access": "shared"}, "a key that many share opens the endpoint"),
    "device, private": ({"asked_from": "device", "private_architecture": True}, "who holds the device holds the"),
    "offline, private": ({"asked_from": "offline", "private_architecture": True}, "the one file holds the weights"),
    "device, proxies": ({"asked_from": "device", "proxies": ["10.0.0.1"]}, "nothing stands between a device and"),
    "batch, proxies": ({"waits": False, "proxies": ["10.0.0.1"]}, "a batch has no endpoint"),
    "no room": ({"fit": 1}, "the busiest hour needs more engines than fit into this machine's memory; `nightshift"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_answers_that_cannot_be_meant_together_are_refused_in_one_sentence(name: str) -> None:
    answers, said = CONTRADICTIONS[name]
    with pytest.raises(ParamsError, match=f"^deployment: .*{said}") as refused:
        derived(**answers)
    assert len(str(refused.value).splitlines()) == 1


def test_every_contradiction_of_the_table_is_tried() -> None:
    assert len(CONTRADICTIONS) == len(TABLE.contradictions)


def test_more_context_than_systems_are_made_for_is_refused() -> None:
    with pytest.raises(ParamsError, match=r"deployment\.context: 8192 tokens are needed, and .* 4096; raise system"):
        derived(context=8192)


def combinations() -> Iterator[dict[str, Any]]:
    """All answers that a condition can ask about."""
    asked = {
        "asked_from": ["device", "network", "internet", "offline"], "waits": [True, False],
        "access": ["shared", "personal", "strict"], "private_architecture": [True, False],
        "proxies": [[], ["10.0.0.1"]], "device": ["cpu", "cuda"], "fit": [None, 0, 99],
    }  # fmt: skip
    for values in itertools.product(*asked.values()):
        yield dict(zip(asked, values, strict=True))


def test_every_line_of_the_table_decides_something_and_none_is_missing() -> None:
    decided: set[tuple[str, str]] = set()
    refused = 0
    for answers in combinations():
        try:
            decided |= {(one.key, one.because) for one in lines(**answers)}
        except ParamsError as error:
            assert "no line of" not in str(error)
            refused += 1
    table = {(key, rule.because) for key, rules in TABLE.lines.items() for rule in rules}
    assert table - decided == set()
    assert 0 < refused < 576


def test_every_line_has_a_reason_and_every_setting_a_place(root: Path) -> None:
    made = lines()
    assert all(one.because for one in made)
    values, by_hand = pattern.settings(root / params.FILE, made)
    assert set(values) | {one.key for one in by_hand} == {one.key for one in made}
    assert {one.key.split(".")[0] for one in by_hand} <= {
        "pattern", "keys", "environments", "models", "card", "quantisation", "delivery", "batch", "serve",
    }  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_what_is_printed_is_what_is_written(name: str, root: Path, tmp_path: Path) -> None:
    file = tmp_path / params.FILE
    shutil.copyfile(root / params.FILE, file)
    made = lines(**GOLDEN[name][0])
    values, _ = pattern.settings(file, made)
    printed = YAML(typ="safe").load("\n".join(pattern.overlay([one for one in made if one.key in values])))
    for key, value in values.items():
        place: Any = printed
        for step in key.split("."):
            place = place[step]
        assert place == value
    params.write(file, values, "pattern")
    params.check(file)
    document = params.plain(params.parse(file))
    assert document["serve"]["listen"]["host"] == values["serve.listen.host"]
    assert file.read_text().startswith((root / params.FILE).read_text()[:200])  # comments stay


def test_a_value_that_a_section_refuses_is_not_written(root: Path, tmp_path: Path) -> None:
    file = tmp_path / params.FILE
    shutil.copyfile(root / params.FILE, file)
    with pytest.raises(ParamsError, match=r"pattern: serve\.limits\.queue: input should be greater"):
        params.write(file, {"serve.limits.queue": 0}, "pattern")
    with pytest.raises(ParamsError, match=r"no key 'serve\.limits\.nothing'"):
        params.write(file, {"serve.limits.nothing": 1}, "pattern")
    assert file.read_text() == (root / params.FILE).read_text()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("when: {asked_from: device}, is: edge", "when: {asked: device}, is: edge", "nothing answers 'asked'"),
        ("contradictions:", "contradictions: []\ncontradictions:", "'contradictions' stands twice"),
        ("is: 7, because: a key that got lost is worth a week", "is: 7", r"lines\.keys\.days\.0\.because"),
        ("lines:", "more: 1\nlines:", "more: extra inputs are not permitted"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(old: str, new: str, said: str, root: Path, tmp_path: Path) -> None:
    text = (root / pattern.TABLE).read_text()
    assert old in text
    (tmp_path / "table.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(ParamsError, match=said):
        Table.read(tmp_path / "table.yaml")


def test_a_case_that_the_table_leaves_out_is_said() -> None:
    short = TABLE.model_copy(update={"lines": TABLE.lines | {"card": TABLE.lines["card"][:1]}})
    with pytest.raises(ParamsError, match=r"deployment\.yaml: no line of card holds for .*; add one that does"):
        derive(short, Deployment.model_validate(BASE), "cpu", 4096, None)


def test_it_counts_on_as_many_engines_as_the_endpoint_starts(
    project: Released, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape, slots = capacity.Shape(42_092_032, 16, 8, 64, 512, 1024, 2, 8192, 0), TRAITS["openvino"].slots
    monkeypatch.setattr(capacity.Shape, "of", lambda *_: shape)
    monkeypatch.setattr(capacity, "memory", lambda: 8 * capacity.need(shape, slots, shape.context, slots).total)
    folder = project.store.trusted(project.release("v0.1.0"))[0] / "system"
    served: Any = SimpleNamespace(system=System.open(folder), engines=[SimpleNamespace(slots=slots)])
    place = Place(project.folder, project.store.state, project.store.home, project.folder)
    assert _engines_that_fit(place, shape.context) == room(served, "openvino")
