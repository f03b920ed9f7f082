"""What others see of a release's papers tells neither architecture nor training, where these are private."""

from __future__ import annotations

import json

import pytest

from nightshift import params, window
from nightshift.release import shown
from nightshift.window import Certificate
from tests.conftest import ROOT
from tests.private import Private
from tests.release.project import Released


@pytest.fixture
def private(project: Released) -> Private:
    """What is private about v0.1.0."""
    folder = project.store.trusted(project.release("v0.1.0"))[0]
    document = params.plain(params.parse(ROOT / params.FILE))
    training = {"pretrain": document["pretrain"], "lora": document["adapt"]["lora"]}
    lock = (ROOT / "requirements.txt").read_text()
    return Private.of(folder / "system", lock, folders=[project.folder], training=training)


@pytest.mark.parametrize("name", ["card.md", "bom.json"])
def test_a_public_paper_gives_nothing_away_and_the_whole_one_does(
    name: str, project: Released, private: Private
) -> None:
    release = project.release("v0.1.0")
    whole, public = (shown.paper(project.store, release, name, hidden) for hidden in (False, True))
    said = json.loads((project.store.copy(release.digest) / "facts.json").read_text())
    secret = [said["system"]["digests"]["base"], said["base"]["origin"], str(said["base"]["parameters"])]
    assert private.found(public) == []
    assert [one for one in secret if one in public] == []
    assert [one for one in secret if one in whole] != []
    assert "Apache-2.0" in public
    assert shown.paper(project.store, release, name, True) == public


def test_the_public_card_says_the_window_that_is_certified(project: Released) -> None:
    release = project.release("v0.1.0")
    assert "- Context: 1024 tokens\n" in shown.paper(project.store, release, "card.md", True)
    window.store(project.store.home, release.digest, Certificate(512, 1024, 1, (), True))
    assert "- Context: 512 tokens\n" in shown.paper(project.store, release, "card.md", True)


def test_the_public_bill_is_still_a_bill(project: Released) -> None:
    bill = json.loads(shown.paper(project.store, project.release("v0.1.0"), "bom.json", True))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.7")
    (model,) = bill["components"]
    assert model["hashes"] == [{"alg": "SHA-256", "content": project.release("v0.1.0").digest}]


def test_the_command_shows_what_params_allow(project: Released) -> None:
    assert "- Parameters: " in project.cli("release", "card", "v0.1.0").stdout
    params.write(project.folder / params.FILE, {"deployment.private_architecture": True}, "test")
    assert "- Parameters: " not in project.cli("release", "card", "v0.1.0").stdout
    assert "- Parameters: " in project.cli("release", "card", "v0.1.0", "--whole").stdout
    assert '"name": "model"' in project.cli("release", "card", "v0.1.0", "--bill").stdout
