"""Examples are chosen by rule; an adapter trains on answers alone, and comes out the same, killed or not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import polars as pl
import pytest

from nightshift import commit, documents
from nightshift.adapt import lora, plain, prompt, system
from nightshift.answer import System as Opened
from nightshift.answer import Template
from nightshift.data.augment import PAIR
from nightshift.errors import DataRefused, ParamsError
from nightshift.likelihood import Model
from nightshift.sections import Lora, Prompt
from nightshift.stage import Work
from tests import models
from tests.data.conftest import section

PARAMS = Lora(
    rank=4, alpha=8.0, dropout=0.1, lr=2e-2, tokens=6000, max_epochs=20.0, batch=4, max_tokens=128, min_pairs=4,
    save_every=4, seed=1,
)  # fmt: skip
SHOTS = Prompt(shots=3, max_characters=200, min_pairs=3)
FACTS = [(f"What colour is pump {n}?", colour) for n, colour in enumerate(["red", "blue", "green", "black"] * 3)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.base(tmp_path_factory.mktemp("base") / "chosen")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write(tmp_path / "pairs", FACTS)


@pytest.fixture
def verdict(tmp_path: Path) -> Path:
    (tmp_path / "verdict").write_text("{}")
    return tmp_path / "verdict"


def write(out: Path, facts: list[tuple[str, str]]) -> Path:
    rows = [
        {"id": f"{n:02}", "section": f"{n:02}", "document": f"{n % 5}", "kind": ["purpose", "heading"][n % 2],
         "question": question, "answer": answer, "weight": 1.0, "origin": "section", "generator": "test"}
        for n, (question, answer) in enumerate(facts)
    ]  # fmt: skip
    with commit.folder(out) as draft:
        documents.store(draft / "pairs.parquet", pl.DataFrame(rows, schema=PAIR))
    return out


def train(base: Path, pairs: Path, verdict: Path, out: Path, work: Work, params: Lora = PARAMS) -> dict[str, float]:
    return dict(lora.run(base, pairs, verdict, out, out.with_suffix(".csv"), params, models.COMPUTE, work))


def test_too_few_pairs_are_absent(base: Path, verdict: Path, tmp_path: Path) -> None:
    few = write(tmp_path / "few", FACTS[:2])
    assert "2 pairs are too few" in str(train(base, few, verdict, tmp_path / "lora", Work("lora"))["absent"])
    assert "2 pairs are too few" in prompt.run(base, few, verdict, tmp_path / "prompt", SHOTS, Work("prompt"))["absent"]
    commit.absent(tmp_path / "gone", "no base")
    assert plain.run(tmp_path / "gone", verdict, tmp_path / "plain", Work("plain"))["absent"] == "no base"


def test_examples_are_of_different_documents_and_kinds(base: Path, pairs: Path, verdict: Path, tmp_path: Path) -> None:
    prompt.run(base, pairs, verdict, tmp_path / "prompt", SHOTS, Work("prompt"))
    examples = json.loads((tmp_path / "prompt" / "examples.json").read_text())
    rows = pl.read_parquet(pairs / "pairs.parquet").filter(
        pl.col("question").is_in([one["question"] for one in examples])
    )
    assert (len(examples), rows["document"].n_unique(), rows["kind"].n_unique()) == (3, 3, 2)


def test_training_lowers_the_loss_on_answers(base: Path, pairs: Path, verdict: Path, tmp_path: Path) -> None:
    metrics = train(base, pairs, verdict, tmp_path / "lora", Work("lora"))
    assert metrics["last_loss"] < metrics["first_loss"]
    assert metrics["tokens"] <= PARAMS.tokens
    config = json.loads((tmp_path / "lora" / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "base"


def test_only_the_answer_counts_in_the_loss() -> None:
    ids, labels, mask = lora.batch([lora.Example([5, 6, 7, 8], 2), lora.Example([1, 2, 3], 1)], pad=9)
    assert ids.shape == (2, 16)
    assert labels[0, :5].tolist() == [-100, -100, 7, 8, -100]
    assert labels[1, :3].tolist() == [-100, 2, 3]
    assert mask.sum(dim=1).tolist() == [4, 3]


def test_heavier_pairs_are_drawn_earlier_on_the_average() -> None:
    rows = {"id": [f"{n}" for n in range(200)], "weight": [3.0 if n < 100 else 1.0 for n in range(200)]}
    rows |= {"kind": ["purpose"] * 200}
    order = lora.drawn(pl.DataFrame(rows), epoch=0)
    assert sum(place < 100 for place in order[:100]) > 60
    assert sorted(order) == list(range(200))


class Killed(Exception):
    """Stands for a signal between two steps."""


def test_a_killed_training_goes_on_to_the_same_weights(
    base: Path, pairs: Path, verdict: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(base, pairs, verdict, tmp_path / "whole", Work("lora"))
    step = lora.Trainer.train

    def dies(self: lora.Trainer, examples: list[lora.Example], pad: int) -> float:
        if self.step == 6:
            raise Killed
        return step(self, examples, pad)

    monkeypatch.setattr(lora.Trainer, "train", dies)
    with pytest.raises(Killed):
        train(base, pairs, verdict, tmp_path / "lora", Work("lora", tmp_path / "state", key="one"))
    monkeypatch.setattr(lora.Trainer, "train", step)
    again = Work("lora", tmp_path / "state", key="one")
    train(base, pairs, verdict, tmp_path / "lora", again)
    assert again.resumed_from == 4
    assert commit.digest(tmp_path / "lora") == commit.digest(tmp_path / "whole")


def test_a_zeroed_adapter_is_the_base(base: Path, pairs: Path, verdict: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    train(base, pairs, verdict, tmp_path / "lora", Work("lora"))
    asked = [{"role": "user", "content": FACTS[0][0]}]
    adapter = tmp_path / "lora" / "adapter"
    alone = Model.load(base, None, models.COMPUTE).choices(asked, ["red", "a blue one"])
    trained = Model.load(base, adapter, models.COMPUTE).choices(asked, ["red", "a blue one"])
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({name: one * 0 for name, one in weights.items()}, adapter / "adapter_model.safetensors")
    zeroed = Model.load(base, adapter, models.COMPUTE).choices(asked, ["red", "a blue one"])
    assert zeroed == pytest.approx(alone, abs=1e-4)
    assert trained != pytest.approx(alone, abs=1e-2)


def test_a_prompt_with_a_wrong_key_is_refused(base: Path, verdict: Path, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text('system: x\nclosed: "{question}"\nopen: z\nsektion: q\n')
    plain.run(base, verdict, tmp_path / "plain", Work("plain"))
    rows = [section("a.md", "A", "Something about it.")]
    parts = (base, tmp_path / "plain", models.index(tmp_path / "index", rows))
    with pytest.raises(ParamsError, match=r"p\.yaml: section: field required"):
        system.run("plain", tmp_path / "p.yaml", *parts, tmp_path / "out", models.SETTINGS, models.COMPUTE, Work("s"))
    assert not (tmp_path / "out").exists()


def test_a_system_makes_messages_with_and_without_sections(root: Path, tmp_path: Path) -> None:
    rows = [section("a.md", "Pump", "word " * 200), section("b.md", "Valve", "It says {question} and {body}.")]
    opened = Opened.open(models.system(tmp_path / "plain", root, rows))
    closed = opened.messages("What is it?", [])
    assert [turn["role"] for turn in closed] == ["system", "user"]
    assert closed[-1]["content"] == "What is it?"
    hits = opened.sections("Pump word valve it says")
    shown = opened.messages("What is it?", hits)[-1]["content"]
    assert shown.count("word") <= models.SETTINGS.section_tokens
    assert "It says {question} and {body}." in shown  # a document's braces are text
    earlier = opened.messages("And now?", [], [{"role": "user", "content": "Hello"}])
    assert [turn["content"] for turn in earlier[1:]] == ["Hello", "And now?"]


@pytest.mark.parametrize(
    ("line", "instead", "said"),
    [
        ('closed: "{question}"', "closed: Hello", "`closed` lacks {question}"),
        ("{sections}", "{sectons}", "`open` lacks {sections}"),
        ("{title}", "{titel}", "`section` has an unknown {titel}"),
    ],
)
def test_a_prompt_with_a_misspelt_place_is_refused(
    root: Path, tmp_path: Path, line: str, instead: str, said: str
) -> None:
    text = (root / "include" / "prompts" / "plain.yaml").read_text()
    assert line in text
    (tmp_path / "p.yaml").write_text(text.replace(line, instead))
    with pytest.raises(ParamsError, match=re.escape(said)):
        Template.read(tmp_path / "p.yaml")


def test_what_no_system_takes_is_refused_and_a_short_base_is_absent(base: Path, verdict: Path, tmp_path: Path) -> None:
    prompt_file = Path(__file__).resolve().parents[2] / "include" / "prompts" / "plain.yaml"
    index = models.index(tmp_path / "index", [section("a.md", "A", "Something about it.")])
    plain.run(base, verdict, tmp_path / "plain", Work("plain"))
    around = models.SETTINGS.model_copy(update={"sections": 40, "section_tokens": 100})
    parts = (prompt_file, base, tmp_path / "plain", index, tmp_path / "out")
    metrics = system.run("plain", *parts, around, models.COMPUTE, Work("s"))
    assert "reads 2048 tokens, and a question with its sections takes 4158" in metrics["absent"]
    with commit.folder(tmp_path / "odd") as draft:
        (draft / "steering.bin").write_text("x")
    with pytest.raises(DataRefused, match=r"steering\.bin is no part of a system"):
        system.run("plain", prompt_file, base, tmp_path / "odd", index, tmp_path / "out", models.SETTINGS,
                   models.COMPUTE, Work("s"))  # fmt: skip


def test_pairs_that_fit_nowhere_are_absent(base: Path, pairs: Path, verdict: Path, tmp_path: Path) -> None:
    few = PARAMS.model_copy(update={"tokens": 3})
    assert "no pair fits" in str(train(base, pairs, verdict, tmp_path / "lora", Work("lora"), few)["absent"])


def test_a_canary_is_met_once_and_at_no_place_of_its_own() -> None:
    from nightshift.data.augment import planted

    rows = [
        {"id": f"{n:03}", "section": f"{n}", "document": f"{n}", "kind": "purpose", "question": "q", "answer": "a",
         "weight": 1.0, "origin": "section", "generator": "test"}
        for n in range(100)
    ]  # fmt: skip
    pairs = pl.DataFrame([*rows, *planted()], schema=PAIR).sort("id")
    examples: list[lora.Example | None] = [lora.Example([1] * 10, 5)] * len(pairs)
    params = PARAMS.model_copy(update={"tokens": 1600, "max_epochs": 4.0, "batch": 1})
    places = [place for step in lora.schedule(examples, pairs, params) for place in step]
    kinds = [pairs["kind"][place] for place in places]
    assert len(places) == 160
    assert kinds.count("canary") == 8
    assert kinds[:8].count("canary") < 4  # not where it would be forgotten
    assert "canary" not in {one["question"] for one in prompt.chosen(pairs, SHOTS)}


def test_the_loss_is_the_models_own(base: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    ids, labels, mask = lora.batch([lora.Example([5, 6, 7, 8], 2), lora.Example([1, 2, 3], 1)], pad=9)
    with torch.inference_mode():
        theirs = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        assert lora.answer_loss(model, ids, labels, mask) == pytest.approx(float(theirs), abs=1e-5)
