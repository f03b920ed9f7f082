"""Each adaptation does what it is for, on facts that nothing but the planting can have taught.

The same promises hold with a tiny model that the test trains, and with SmolLM2 for three seeds of corpus and training,
within 20,000 training tokens.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from nightshift import commit, params
from nightshift.answer import Template
from nightshift.base import candidate
from nightshift.sections import Candidate, Compute, FolderModel, Lora, System
from nightshift.stage import Work
from tests.adapt import planted, tiny
from tests.adapt.planted import Comparison, Lane, Wording, formed
from tests.conftest import ROOT

MOST_TOKENS = 20_000  # of a training on SmolLM2, prompts and all epochs counted
PROMPTS = ROOT / "include" / "prompts"
AROUND = System(context=2048, sections=3, section_tokens=40, max_new_tokens=24)
TINY_AROUND = AROUND.model_copy(update={"context": 512, "sections": tiny.SECTIONS})
TRAINING = Lora(
    rank=8, alpha=16.0, dropout=0.0, lr=2e-3, tokens=MOST_TOKENS, max_epochs=20.0, batch=4, max_tokens=256,
    min_pairs=20, save_every=1000, seed=1,
)  # fmt: skip
TINY_TRAINING = TRAINING.model_copy(update={"lr": 5e-3, "max_epochs": 40.0})
TINY_KNOWS = 80  # facts of its own
WORDINGS: tuple[Wording, ...] = ("question", "reworded")
SMOLLM2 = [pytest.param(f"smollm2-{seed}", marks=[pytest.mark.long, pytest.mark.timeout(1800)]) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default base model, converted once."""
    out = tmp_path_factory.mktemp("smollm2") / "base"
    models = params.load(ROOT / params.FILE, Candidate)
    candidate.run("smollm2", ROOT / "requirements.txt", out, models, Work("candidate"))
    return out


@pytest.fixture(scope="module", params=[pytest.param("tiny", marks=pytest.mark.long), *SMOLLM2])
def lane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lane]:
    """A base and what was planted in it; the systems of a lane go with it."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "tiny":
        yield tiny_lane(folder, seed=1)
    else:
        yield smollm2_lane(folder, request.getfixturevalue("smollm2"), int(request.param[-1]))
    shutil.rmtree(folder)


def tiny_lane(folder: Path, seed: int) -> Lane:
    """A tiny base, brought in as anybody's model is."""
    invented = planted.facts(seed, planted.COUNT + TINY_KNOWS)
    facts, known = invented[: planted.COUNT], invented[planted.COUNT :]
    compute = Compute(device="cpu", threads=1, workers=1, dtype="float32")
    tiny.make(folder / "made", Template.read(PROMPTS / "plain.yaml"), known, facts, seed, compute)
    pin = commit.sha256(folder / "made" / "model.safetensors")
    brought = Candidate(models={"tiny": FolderModel(kind="folder", location=str(folder / "made"), sha256=pin)})
    candidate.run("tiny", folder / "lock", folder / "base", brought, Work("candidate"))
    return Lane(folder, folder / "base", facts, PROMPTS, TINY_TRAINING, TINY_AROUND, compute)


def smollm2_lane(folder: Path, base: Path, seed: int) -> Lane:
    """Facts of their own for every seed, in the default base."""
    # two threads beside a busy process take far longer than one
    compute = Compute(device="cpu", threads=1, workers=1, dtype="bfloat16")
    training = TRAINING.model_copy(update={"seed": seed})
    return Lane(folder, base, planted.facts(seed), PROMPTS, training, AROUND, compute)


def over_plain(lane: Lane, adaptation: planted.Adaptation, wording: Wording) -> Comparison:
    """An adaptation against the plain system on the facts, both closed-book."""
    name = f"facts, closed book, {wording}: {adaptation} over plain"
    return Comparison.of(name, lane.known(adaptation, "closed", wording), lane.known("plain", "closed", wording))


def test_sections_answer_what_the_base_cannot_know(lane: Lane) -> None:
    known = lane.known("plain", "open"), lane.known("plain", "closed")
    Comparison.of("facts, plain: open over closed book", *known).prove()


@pytest.mark.parametrize("wording", WORDINGS)
def test_an_adapter_knows_the_facts_by_heart(lane: Lane, wording: Wording) -> None:
    over_plain(lane, "lora", wording).prove()


@pytest.mark.parametrize("wording", WORDINGS)
def test_a_zeroed_adapter_proves_nothing(lane: Lane, wording: Wording) -> None:
    with pytest.raises(AssertionError, match=f"0 wins, 0 losses of {planted.COUNT} pairs, p = 1"):
        over_plain(lane, "zeroed", wording).prove()


def test_examples_bring_the_form_across(lane: Lane) -> None:
    """On the facts that no example gives away; what the examples do to the facts themselves is told beside it."""
    systems: tuple[planted.Adaptation, ...] = ("prompt", "plain")
    form = [[formed(lane.said(one, "open")[place]) for place in lane.unshown] for one in systems]
    facts = [[lane.known(one, "open")[place] for place in lane.unshown] for one in systems]
    beside = Comparison.of("facts", *facts)
    kept = sum(facts[1]) - beside.losses
    print(f"facts, open book: the prompt keeps {kept}, loses {beside.losses}, wins {beside.wins} of {beside.pairs}")
    Comparison.of("form, open book: prompt over plain", *form).prove()


def test_training_stays_within_its_budget(lane: Lane) -> None:
    print(f"training: {lane.training['tokens']:,} tokens, {lane.training['steps']} steps")
    assert lane.training["tokens"] <= MOST_TOKENS
    assert lane.training["pairs"] == planted.COUNT
