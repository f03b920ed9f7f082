"""What a run's conf and a DAG's own params make of params.yaml, and what of them is refused at the pin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from dvc_engine.store import params, snapshot
from dvc_engine.store.commit import Commit
from tests.dvc_airflow.conftest import DVC_YAML, Toy

Make = Callable[..., Toy]
PARAMS = """\
profile: laptop
total: {by: 1, rate: 0.5, names: [a], note: null}
profiles:
  laptop: {}
  tiny: {total: {by: 9}}
"""


@pytest.fixture
def made(toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    return toy(DVC_YAML, **{"params.yaml": PARAMS})


def pinned(made: Toy, dag: Any, conf: dict[str, Any] | None, task: str = "pin") -> dict[str, Any]:
    """params.yaml of the commit that the pin makes of HEAD, after Airflow has merged the run's conf as a task does."""
    from airflow.sdk.definitions.param import process_params

    pin = dag.get_task(task)
    process_params(dag, pin, conf, suppress_exception=False)
    commit = pin._commit({"dag_run": type("Run", (), {"conf": conf})}, pin.settings.repository, "")
    return YAML(typ="safe").load(made.git("show", f"{commit}:params.yaml"))


def own(made: Toy, fields: dict[str, Any]) -> Any:
    from dvc_airflow import DvcDag

    return DvcDag("toy", made.root, params=fields)


def grouped(made: Toy, fields: dict[str, Any]) -> Any:
    from airflow.sdk import DAG

    from dvc_airflow import DvcTaskGroup

    with DAG("mine", params=fields) as dag:
        DvcTaskGroup("models", made.root)
    return dag


def test_a_whole_form_overrides_what_was_changed_in_it(made: Toy) -> None:
    """The web UI sends every field along."""
    from dvc_airflow import DvcDag

    dag = DvcDag("toy", made.root)
    conf = dag.params.dump() | {"profile": "tiny", "total.rate": 0.25}
    assert set(conf) == {"profile", "total.by", "total.rate", "total.names", "total.note"}
    read = pinned(made, dag, conf)
    assert (read["profile"], read["total"]) == ("tiny", {"by": 9, "rate": 0.25, "names": ["a"], "note": None})
    said = {"profile": "tiny", "total.by": 1}  # by itself it is meant, though it equals its default
    assert pinned(made, dag, said)["total"]["by"] == 1


def test_an_integer_stays_one(made: Toy) -> None:
    """JSON has 4.0 for 4, and a schema takes it for one."""
    from dvc_airflow import DvcDag

    assert repr(pinned(made, DvcDag("toy", made.root), {"total.by": 4.0})["total"]["by"]) == "4"


@pytest.mark.parametrize(("conf", "by"), [(None, 3), ({}, 3), ({"total.by": 4}, 4)])
def test_params_of_a_dag_hold_for_runs_that_nobody_triggers(conf: dict[str, Any] | None, by: int, made: Toy) -> None:
    assert pinned(made, own(made, {"total.by": 3, "total.rate": None}), conf)["total"]["by"] == by
    assert pinned(made, grouped(made, {"total.by": 3, "theirs": 1}), conf, "models.pin")["total"]["by"] == by


def test_a_seed_of_128_bits_is_no_field_and_airflow_can_say_all_others(made: Toy) -> None:
    """Its processes talk in MessagePack; one that cannot say what it read ends, and no page shows why."""
    import msgspec
    from airflow.serialization.serialized_objects import DagSerialization

    from dvc_airflow import DvcDag

    made.commit({"params.yaml": f"total: {{by: {2**64 - 1}}}\nseed: {2**127}\nof: [1, {{a: {-(2**63) - 1}}}]\n"})
    dag = DvcDag("toy", made.root)
    assert dag.params.dump() == {"total.by": 2**64 - 1}
    msgspec.msgpack.encode(DagSerialization.to_dict(dag))
    assert pinned(made, dag, {"total.by": 5})["seed"] == 2**127


def test_a_group_without_its_name_before_its_tasks_is_refused(made: Toy) -> None:
    """By that its night knows which params are its own."""
    from airflow.sdk import DAG

    from dvc_airflow import DvcTaskGroup
    from dvc_engine.pipeline.project import ProjectError

    with DAG("mine"), pytest.raises(ProjectError, match=r"prefix_group_id: .*; leave it out"):
        DvcTaskGroup("models", made.root, prefix_group_id=False)


@pytest.mark.parametrize(
    "text", ["profiles: 3\n", "profiles: {web: {by: 1}}\n", "profile: web\nprofiles: {web: 3}\n", "profile: mine\n"]
)
def test_a_project_may_call_values_of_its_own_profiles(text: str, made: Toy) -> None:
    """Only where `profile` names one of the `profiles` these are overlays."""
    from dvc_airflow import DvcDag

    made.commit({"params.yaml": f"{text}total: {{by: 1}}\n"})
    dag = DvcDag("toy", made.root, schedule="@daily")
    fields = dag.params.dump()
    assert set(fields) == set(params.leaves(YAML(typ="safe").load(text))) | {"total.by"}
    read = pinned(made, dag, fields | {"total.by": 7} | ({"profile": "yours"} if "profile" in fields else {}))
    assert read["total"]["by"] == 7
    assert read.get("profile") == ("yours" if "profile" in fields else None)


def test_params_that_are_no_yaml_are_refused_with_the_line(made: Toy) -> None:
    from dvc_airflow import DvcDag
    from dvc_engine.pipeline.project import ProjectError

    dag = DvcDag("toy", made.root)
    made.commit({"params.yaml": "total: {by: 1\n"})
    with pytest.raises(ProjectError, match=r"params\.yaml:2: not YAML"):
        DvcDag("toy", made.root)
    with pytest.raises(ProjectError, match=r"params\.yaml:2: not YAML"):
        pinned(made, dag, {"total.by": 3})
    with pytest.raises(snapshot.Refused, match=r"params\.yaml is no YAML \(.*\); mend it, and commit it"):
        params.values(made.root, "HEAD")


def test_a_dag_may_name_a_profile(made: Toy) -> None:
    read = pinned(made, own(made, {"profile": "tiny", "total.rate": 2.0}), None)
    assert (read["profile"], read["total"]["by"], read["total"]["rate"]) == ("tiny", 9, 2.0)


def test_what_params_yaml_says_by_now_is_no_override(made: Toy) -> None:
    """The form's defaults are of an earlier parse."""
    from dvc_airflow import DvcDag

    dag = DvcDag("toy", made.root)
    made.commit({"params.yaml": PARAMS.replace("by: 1", "by: 2")})
    assert pinned(made, dag, None)["total"]["by"] == 2


@pytest.mark.parametrize("of", [own, grouped])
@pytest.mark.parametrize(
    ("conf", "said"),
    [
        ({"total.by": "many"}, "total.by is 'many', and params.yaml has 1 there: write a JSON integer"),
        ({"total.by": 1.5}, "total.by is 1.5, and params.yaml has 1 there: write a JSON integer"),
        ({"total.by": True}, "total.by is True, and params.yaml has 1 there: write a JSON integer"),
        ({"total.names": "a"}, "total.names is 'a', and params.yaml has ['a'] there: write a JSON array"),
    ],
)
def test_a_value_of_another_kind_is_refused(of: Any, conf: dict[str, Any], said: str, made: Toy) -> None:
    """Fields that a DAG's writer gave have no schema by which Airflow could tell."""
    dag = of(made, dict.fromkeys(conf))
    with pytest.raises(snapshot.Refused) as refused:
        pinned(made, dag, conf, "pin" if of is own else "models.pin")
    assert str(refused.value) == said


def test_a_value_of_the_same_kind_is_taken(made: Toy) -> None:
    conf = {"total.rate": 2, "total.names": [], "total.note": "x"}
    assert pinned(made, grouped(made, {}), conf, "models.pin")["total"] == {
        "by": 1,
        "rate": 2,
        "names": [],
        "note": "x",
    }


def test_a_key_that_nothing_obeys_is_refused(made: Toy) -> None:
    from dvc_airflow import DvcDag

    with pytest.raises(snapshot.Refused, match=r"the run's conf has total\.bi"):
        pinned(made, DvcDag("toy", made.root), {"total.bi": 2})
    with pytest.raises(snapshot.Refused, match=r"the run's conf has total\.by"):
        pinned(made, own(made, {"total.rate": 0.5}), {"total.by": 2})
    with pytest.raises(snapshot.Refused, match=r"params\.yaml has no key total\.bi; name one that it has"):
        pinned(made, own(made, {"total.bi": 2}), None)
    with pytest.raises(snapshot.Refused, match=r"the run's conf has total\.bi, and params\.yaml has no such key"):
        pinned(made, grouped(made, {"theirs": 1}), {"total.bi": 2}, "models.pin")


def test_in_a_dag_of_somebody_else_other_keys_are_theirs(made: Toy) -> None:
    conf = {"theirs": 2, "whose": {"total.by": 7}}
    assert pinned(made, grouped(made, {"theirs": 1, "total.theirs": 2}), conf, "models.pin")["total"]["by"] == 1


@pytest.mark.parametrize(
    "text",
    [
        "total: {by: 1}\n",
        "total: {by: 1}  # a comment\nprompt: |\n  You are kind.\n",
        f"total: {{by: 1}}\nprompt: >-\n  You are\n    {'very ' * 40}kind\n  today.\n",
        "total: {by: 1}  # a comment\nrate: .nan\n",
    ],
    ids=["short", "ends in a text", "long lines", "no number"],
)
def test_an_override_leaves_the_file_as_it_is_written(text: str, made: Toy) -> None:
    (made.root / "params.yaml").write_text(text)
    commit = params.override(made.root, made.commit({}), {"total.by": 3})
    assert Commit(made.root, commit).content("params.yaml") == text.replace("1", "3").encode()


@pytest.mark.parametrize("text", ["other: *t\n", "other: {<<: *t}\n"])
def test_an_override_is_that_of_the_aliases_too_as_by_dvc(text: str, made: Toy) -> None:
    (made.root / "params.yaml").write_text(f"total: &t {{by: 1, names: [a]}}  # for all\n{text}rate: 1\n")
    commit = made.commit({})
    found = params.override(made.root, commit, {"total.by": 3, "rate": float("nan")})
    after = params.values(made.root, found)
    assert (after["total.by"], after["other.by"]) == (3, 3)
    assert "# for all" in made.git("show", f"{found}:params.yaml")


def test_a_key_and_its_alias_cannot_have_two_values(made: Toy) -> None:
    (made.root / "params.yaml").write_text("total: &t {by: 1}\nother: *t\n")
    with pytest.raises(snapshot.Refused, match=r"total\.by is what its alias is, or its anchor, .* write it out"):
        params.override(made.root, made.commit({}), {"total.by": 5, "other.by": 2})
