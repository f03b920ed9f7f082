"""What a text gives away is found, and a text about such things is not taken for it."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from nightshift.versions import pinned
from tests import models
from tests.conftest import ROOT
from tests.private import Private
from tests.release.project import ROWS

TRAINING = {"learning_rate": 3e-3, "layers": 6, "lora": {"alpha": 16.0, "tokens": 14000}, "seed": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A system whose base says more than the small one's."""
    made = models.system(tmp_path_factory.mktemp("secret") / "plain", ROOT, ROWS)
    facts = json.loads((made / "base" / "facts.json").read_text())
    (made / "base" / "facts.json").write_text(json.dumps(facts | {"parameters": 134_515_008, "name": "smollm2"}))
    return made


@pytest.fixture(scope="module")
def private(folder: Path) -> Private:
    lock = (ROOT / "requirements.txt").read_text()
    return Private.of(folder, lock, folders=[Path("/data/ns")], hosts=["gpu-7.example"], training=TRAINING)


# {name} stands for the version of a library in the lock
LEAKS = [
    ("/data/ns/releases/x", "folder"),
    ("at /home/ann/models/x", "folder"),
    ("lib/python3.11/site-packages/x.py", "folder"),
    ("served by gpu-7.example", "host"),
    ("LlamaForCausalLM", "architecture"),
    ('{"model_type": "llama"}', "architecture"),
    ("I am smollm2.", "architecture"),
    ("134,515,008 parameters", "architecture"),
    ('{"hidden_size": 32}', "setting"),
    ("num_hidden_layers=1", "setting"),
    ("learning_rate: 0.003", "setting"),
    ("learning_rate: 3e-03", "setting"),
    ("tokens = 14,000", "setting"),
    ("uvicorn/{uvicorn}", "library"),
    ("model_signing=={model-signing}", "library"),
    ("transformers v{transformers}", "library"),
    ("Python/3.11", "library"),
    ("Server: uvicorn", "trace"),
    ("Traceback (most recent call last):", "trace"),
    ('File "serve.py", line 3', "trace"),
]


@pytest.mark.parametrize(("text", "kind"), LEAKS)
def test_what_is_given_away_is_found(text: str, kind: str, private: Private) -> None:
    for name, version in pinned((ROOT / "requirements.txt").read_text()).items():
        text = text.replace(f"{{{name}}}", version)
    assert kind in {one.partition(":")[0] for one in private.found(text)}


@pytest.mark.parametrize("part", ["resolved", "host"])
def test_the_places_of_this_machine_are_found(part: str, folder: Path, private: Private) -> None:
    text = str(folder.resolve() / "base") if part == "resolved" else f"on {socket.gethostname()}."
    assert private.found(text)


@pytest.mark.parametrize(
    "text",
    [
        "The pump is oiled every Monday; hidden_size is a word of configurations.",
        'POST /v1/chat/completions {"model": "nightshift", "max_tokens": 32, "temperature": 0.003}',
        "transformers is a library; torch 1.0 is old. Use torch or uvicorn, Python code and lamas.",
        '{"error": {"message": "Give a key.", "type": "authentication_error", "param": null, "code": "missing_key"}}',
        "http://127.0.0.1:8000/v1/models, /var/ and /etc, and docs.example/tmp/x",
        "sections: 2, tokens: 140, layers: 60, seed: 12, 134 515 and 134",
        "",
    ],
)
def test_a_text_about_such_things_is_none(text: str, private: Private) -> None:
    assert private.found(text) == []
