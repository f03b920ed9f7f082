"""Airflow in a browser: a person asks for a night with another value, and looks for what it did, or why it did not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ruamel.yaml import YAML
from selenium.webdriver.common.keys import Keys

from tests.browser import Browser, browser
from tests.faults.real import Real, make, running, until

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]
DVC_YAML = """\
stages:
  fit:
    matrix: {model: [tree, linear]}
    cmd: test ${train.rate} != 0.5 || { echo too fast >&2; exit 3; }; cp seed.txt ${item.model}.txt
    deps: [seed.txt]
    outs: ["${item.model}.txt"]
  count: {cmd: "cat *.txt | wc -l > n.txt", deps: [tree.txt, linear.txt], outs: [n.txt]}
"""
PARAMS = "profile: laptop\ntrain: {rate: 0.1, layers: [1, 2]}\nprofiles: {laptop: {}, tiny: {train: {rate: 0.3}}}\n"
WEB = ',\n    web="https://git.example.org/mine/commit/{commit}"'


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    files = {"dvc.yaml": DVC_YAML, "params.yaml": PARAMS, "seed.txt": "3\n"}
    with running(make(tmp_path_factory.mktemp("pages"), files, WEB)) as made:
        yield made


@pytest.fixture(scope="module")
def window(airflow: Real) -> Iterator[Browser]:
    with browser(airflow.folder) as made:
        yield made


def asked(airflow: Real, window: Browser, rate: str) -> str:
    """A night that a person asks for in the form, with another rate; its run, once it has ended."""
    before = runs(airflow)
    window.open(f"{airflow.url}/dags/toy")
    window.see("//button[contains(., 'Trigger')]").click()
    field = window.see("//input[@name='element_train.rate' or @id='element_train.rate']")
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(rate)
    window.see("//*[@role='dialog']//button[normalize-space()='Trigger']").click()
    (run,) = until(lambda: runs(airflow) - before, 30)
    airflow.ended(run)
    return str(run)


def runs(airflow: Real) -> set[str]:
    return {one["dag_run_id"] for one in airflow.request("GET", "dags/toy/dagRuns")["dag_runs"]}


def test_a_value_of_the_form_is_the_nights_and_no_other_changes(airflow: Real, window: Browser) -> None:
    run = asked(airflow, window, "0.25")
    assert airflow.state(run) == "success"
    commit = airflow.night(run)["published"]
    read = YAML(typ="safe").load(airflow.toy.git("show", f"{commit}:params.yaml"))
    assert read == YAML(typ="safe").load(PARAMS.replace("0.1", "0.25"))
    window.open(f"{airflow.url}/dags/toy/runs/{run}/tasks/publish/details")
    link = window.see("//a[normalize-space()='Commit']")
    assert link.get_attribute("href") == f"https://git.example.org/mine/commit/{commit}"
    window.open(f"{airflow.url}/dags/toy/runs/{run}/tasks/end")
    window.says("fit@linear")
    window.says("it waited")


def test_a_stage_that_failed_says_why_on_its_page_and_on_the_nights(airflow: Real, window: Browser) -> None:
    run = asked(airflow, window, "0.5")
    assert airflow.state(run) == "failed"
    window.open(f"{airflow.url}/dags/toy/runs/{run}/tasks/fit.tree")
    window.says("AirflowFailException: fit@tree: failed: its command ended with 3")
    window.says("too fast")
    window.open(f"{airflow.url}/dags/toy/runs/{run}/tasks/end")
    window.says("the night was not published: fit@tree: failed: its command ended with 3")
