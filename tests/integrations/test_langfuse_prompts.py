"""Prompts go both ways with Git as the truth, labels follow environments, a release's items become an experiment."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import polars as pl
import pytest
from ruamel.yaml import YAML

from nightshift import commit, params, registry
from nightshift.answer import Template
from nightshift.errors import StorageError
from nightshift.integrations.langfuse import PUBLIC, SECRET, Server
from nightshift.integrations.langfuse_prompts import Prompts
from nightshift.tracing import Traces
from tests import command
from tests.conftest import ROOT
from tests.integrations import langfuse_server
from tests.integrations.langfuse_server import Langfuse, langfuse
from tests.release.test_release import git

OLD, NEW = "Answer in one short sentence.", "Answer in one sentence."
KEYS = {PUBLIC: langfuse_server.PUBLIC, SECRET: langfuse_server.SECRET}


@dataclass
class Project:
    """A project whose release in production was judged on two items."""

    folder: Path
    held: Langfuse
    release: registry.Release

    def run(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """A command of `nightshift langfuse`."""
        return command.run(self.folder, "langfuse", *words, **KEYS | environ)

    def prompt(self, name: str) -> Path:
        """A prompt's file."""
        return self.folder / "include" / "prompts" / f"{name}.yaml"

    def edit(self, name: str, instead: str) -> None:
        """Change a prompt as a person would in Langfuse: a new version without the file that it came from."""
        last = self.held.prompts[f"nightshift/{name}"][-1]
        turns = [{**turn, "content": turn["content"].replace(OLD, instead)} for turn in last["prompt"]]
        said = {key: last[key] for key in ("name", "type", "config")}
        self.held.create({**said, "prompt": turns})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, registry.Release]:
    folder = tmp_path_factory.mktemp("prompts") / "project"
    git(folder.parent, "init", "-q", str(folder))
    (folder / "include").mkdir()
    subprocess.run(["cp", "-r", str(ROOT / "include" / "prompts"), str(folder / "include")], check=True)
    (folder / "dvc.yaml").write_text("stages: {}\n")
    (folder / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=folder, check=True)
    with commit.folder(folder / "release" / "system") as draft:
        (draft / "system.json").write_text(commit.dumps({"name": "lora"}))
        (draft / "prompt.yaml").write_text((folder / "include/prompts/lora.yaml").read_text())
    system = commit.digest(folder / "release" / "system")
    facts = {"tables": {"items_test": {"digest": "e" * 64}}}
    (folder / "release" / "facts.json").write_text(commit.dumps(facts))
    rows = [("one", "answer", "open", "recall", 1.0), ("two", "answer", "open", "recall", 0.0)]
    with commit.folder(folder / "judged") as draft:
        pl.DataFrame(rows, schema=["item", "kind", "book", "metric", "value"], orient="row").write_parquet(
            draft / f"{system}.parquet"
        )
        (draft / "judged.json").write_text(commit.dumps({"roles": {"winner": system}}))
    items = pl.DataFrame(
        [("one", "answer", "Who oils it?", "The keeper, anna@example.org."), ("two", "answer", "When?", "On Friday.")],
        schema=["id", "kind", "question", "answer"],
        orient="row",
    )
    with commit.folder(folder / "data" / "items" / "test") as draft:
        items.write_parquet(draft / "items.parquet")
    outs = ["release", "judged", "data/items/test"]
    subprocess.run([sys.executable, "-m", "dvc", "add", "-q", *outs], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "manual-1: GO")
    release = registry.Release("v0.3.0", git(folder, "rev-parse", "HEAD"), "a" * 64)
    registry.version(folder, release)
    registry.assign(folder, release)
    registry.assign(folder, release, "canary")
    return folder, release


@pytest.fixture
def project(made: tuple[Path, registry.Release], tmp_path: Path) -> Iterator[Project]:
    folder, release = made
    git(folder, "checkout", "-q", "--", ".")
    file = folder / "params.yaml"
    with langfuse(context=False) as held:
        named = f"  langfuse: {{url: '{held.url}', environment: staging}}\n"
        file.write_text((ROOT / "params.yaml").read_text().replace("  langfuse: null\n", named))
        yield Project(folder, held, release)
    git(folder, "checkout", "-q", "--", ".")


def test_push_makes_langfuse_hold_what_git_has_and_what_is_served(project: Project) -> None:
    said = project.run("push")
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines() == [
        "lora: version 1 is made",
        "plain: version 1 is made",
        "prompt: version 1 is made",
        "canary: v0.3.0 has lora, version 1 of nightshift/served",
        "prod: v0.3.0 has lora, version 1 of nightshift/served",
    ]
    plain = project.held.prompts["nightshift/plain"][0]
    text = YAML(typ="safe").load(project.prompt("plain").read_text())
    assert plain["prompt"] == [
        {"role": "system", "content": text["system"]},
        {"role": "user", "content": text["open"].replace("{", "{{").replace("}", "}}")},
    ]
    served = project.held.prompts["nightshift/served"]
    assert [sorted(one["labels"]) for one in served] == [["canary", "latest", "prod", "production"]]
    again = project.run("push")
    assert again.stdout.splitlines()[0] == "lora: version 1 is what Git has"
    assert all(len(versions) == 1 for versions in project.held.prompts.values())
    assert "the same as version 1" in project.run("diff").stdout


def test_a_change_in_git_is_a_new_version_and_a_label_stays_with_what_is_served(project: Project) -> None:
    project.run("push")
    path = project.prompt("lora")
    path.write_text(path.read_text().replace(OLD, NEW))
    assert "lora: version 2 is made" in project.run("push").stdout
    assert len(project.held.prompts["nightshift/served"]) == 1
    assert project.held.prompts["nightshift/lora"][1]["labels"] == ["latest"]


def test_an_edit_there_is_pulled_looked_at_and_pushed_again(project: Project) -> None:
    project.run("push")
    before = project.prompt("plain").read_text()
    project.edit("plain", NEW)
    refused = project.run("push")
    assert refused.returncode == 12
    assert "somebody edited version 2 of nightshift/plain in Langfuse; `nightshift langfuse pull`" in refused.stderr
    shown = project.run("diff").stdout
    assert f"-  You answer questions about documents. {OLD}" in shown
    assert f"+  You answer questions about documents. {NEW}" in shown
    pulled = project.run("pull")
    assert pulled.returncode == 0, pulled.stderr
    assert "plain: version 2 is in the work tree" in pulled.stdout
    after = project.prompt("plain").read_text()
    assert after == before.replace(OLD, NEW)  # and its comment is where it was
    assert "plain: version 3 is made" in project.run("push").stdout
    assert "plain: the same as version 3" in project.run("diff").stdout


def test_a_pull_overwrites_nothing_that_is_not_committed_and_takes_nothing_that_is_no_prompt(project: Project) -> None:
    project.run("push")
    project.edit("plain", NEW)
    path = project.prompt("plain")
    own = path.read_text() + "# mine\n"
    path.write_text(own)
    refused = project.run("pull")
    assert (refused.returncode, path.read_text()) == (12, own)
    assert "it has changes that are not committed; commit it, or `git restore` it" in refused.stderr
    git(project.folder, "checkout", "-q", "--", ".")
    last = project.held.prompts["nightshift/lora"][-1]
    turns = [{"role": "user", "content": "Say something about {{questoin}}."}]
    project.held.create({"name": last["name"], "type": "chat", "config": last["config"], "prompt": turns})
    file = project.folder / "params.yaml"
    file.write_text((ROOT / "params.yaml").read_text().replace("langfuse: null", f"langfuse: {_named(project)}"))
    wrong = project.run("pull")
    assert wrong.returncode == 10
    assert "nightshift/lora, version 2, in Langfuse: `open` lacks {question}; mend it there." in wrong.stderr


def _named(project: Project) -> str:
    return f"{{url: '{project.held.url}', environment: staging}}"


def test_force_overwrites_what_was_edited_there(project: Project) -> None:
    project.run("push")
    project.edit("plain", NEW)
    assert "plain: version 3 is made" in project.run("push", "--force").stdout


def test_a_span_is_linked_to_the_version_that_its_release_carries(project: Project) -> None:
    project.run("push")
    prompts = Prompts(Server.of(project.held.url, KEYS))
    digest = commit.sha256(project.prompt("lora"))
    assert prompts.linked("lora", digest) == ("nightshift/served", 1)
    assert prompts.linked("lora", "0" * 64) is None
    asked = len(project.held.requests)
    assert prompts.linked("lora", digest) == ("nightshift/served", 1)
    assert len(project.held.requests) == asked  # looked for once a process
    assert Prompts(Server.of("http://127.0.0.1:1", KEYS)).linked("lora", digest) is None


@pytest.mark.parametrize(
    "body",
    [
        b"<html>Sign in</html>",
        b"[]x",
        b"[1]",
        b'{"version": 1}',
        b'{"name": "a", "version": "one", "prompt": []}',
        b'{"name": "a", "version": 1, "prompt": ["x"]}',
        b'{"name": "a", "version": 1, "prompt": [], "config": "x"}',
        b'{"name": "a", "version": 1, "prompt": [], "config": {"file": 1}}',
    ],
)
def test_an_answer_that_is_none_links_nothing_and_is_one_sentence(body: bytes) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, content=body)

    prompts = Prompts(Server("http://langfuse.example.org", "pk", "sk"))
    client = httpx.Client(transport=httpx.MockTransport(answer), base_url=prompts.server.url)
    prompts.server.__dict__["client"] = client  # in the place of the cached one
    assert prompts.linked("lora", "a" * 64) is None
    assert asked
    if b"file" not in body:
        with pytest.raises(StorageError, match=r"langfuse\.example\.org"):
            prompts.latest("lora")


def test_every_prompt_survives_the_way_there_and_back(project: Project) -> None:
    project.run("push")
    prompts = Prompts(Server.of(project.held.url, KEYS))
    for name in ("plain", "prompt", "lora"):
        kept = prompts.latest(name)
        assert kept is not None
        assert Template.model_validate(kept.template) == Template.read(project.prompt(name))
        assert not kept.edited


def test_a_releases_items_become_an_experiment(project: Project) -> None:
    for _ in range(2):  # the second time changes nothing
        said = project.run("experiment", "v0.3.0")
        assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines() == [
        f"dataset nightshift-test-{'e' * 12}: 2 items",
        f"experiment v0.3.0 {'a' * 12}: 2 items",
        "scores: 3",
    ]
    held = project.held
    assert held.complaints == []
    spans = list(held.spans.values())
    assert len(spans) == 2
    for one in spans:
        said_of = {key.removeprefix("langfuse.experiment."): value for key, value in one["attributes"].items()}
        assert said_of["id"] == spans[0]["attributes"]["langfuse.experiment.id"]
        assert said_of["name"] == f"v0.3.0 {'a' * 12}"
        assert said_of["dataset.id"] == "dataset-1"
        assert said_of["item.root_observation_id"] == one["spanId"]
        assert said_of["langfuse.environment"] == "sdk-experiment"
    expected = {one["attributes"]["langfuse.experiment.item.expected_output"] for one in spans}
    assert expected == {"The keeper, <EMAIL>.", "On Friday."}
    assert sorted(one["name"] for one in held.scores.values()) == [
        "mean recall (open)",
        "recall (open)",
        "recall (open)",
    ]
    assert {one["value"] for one in held.scores.values() if "datasetRunId" in one} == {0.5}
    assert {one["expectedOutput"] for one in held.items.values()} == expected


@pytest.mark.parametrize(
    ("words", "environ", "version", "code", "sentence"),
    [
        (
            ["check"],
            {SECRET: "wrong"},
            "4.59.0",
            22,
            "Langfuse does not take this key (401); mend LANGFUSE_SECRET_KEY.",
        ),
        (["check"], {SECRET: ""}, "4.59.0", 22, "LANGFUSE_SECRET_KEY: the key of Langfuse's project is missing"),
        (["check"], {}, "4.58.9", 13, "it is version 4.58.9, and 4.59 is the oldest that will do; upgrade Langfuse."),
        (["experiment", "v9.9.9"], {}, "4.59.0", 2, "there is no version v9.9.9; there are: v0.3.0."),
    ],
)
def test_what_is_wrong_is_a_sentence(
    project: Project, words: list[str], environ: dict[str, str], version: str, code: int, sentence: str
) -> None:
    project.held.version = version
    ended = project.run(*words, **environ)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert sentence in ended.stderr


def test_check_says_what_is_there(project: Project) -> None:
    said = project.run("check").stdout
    assert said == f"Langfuse 4.59.0 at {project.held.url}, project project-1.\n"


def test_without_a_server_in_params_it_says_where_to_write_one(project: Project) -> None:
    (project.folder / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    ended = project.run("push")
    assert ended.returncode == 10
    assert (
        "traces.langfuse names no server; write `langfuse: {url: https://…, environment: production}` there"
        in ended.stderr
    )


def test_the_commands_of_its_page_run(project: Project) -> None:
    page = (ROOT / "docs" / "langfuse.md").read_text()
    blocks = re.findall(r"```sh run\n(.*?)```", page, flags=re.S)
    lines = [line.partition("#")[0].split()[2:] for block in blocks for line in block.splitlines()]
    assert [line[0] for line in lines] == ["check", "push", "diff", "pull", "experiment"]
    for words in lines:
        ended = project.run(*words)
        assert ended.returncode == 0, ended.stderr


def test_the_parameters_of_its_page_are_ones(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\ntraces:\n  (.*?)\n```", (ROOT / "docs" / "langfuse.md").read_text(), flags=re.S)
    file = tmp_path / params.FILE
    file.write_text((ROOT / params.FILE).read_text().replace("langfuse: null", block))
    params.check(file)
    assert params.load(file, Traces).langfuse is not None
