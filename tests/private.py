"""What nobody outside may read of a release: where it lies, what it is made like, and what runs it.

`Private.of(...)` reads a system's own files; `found(text)` names what a response, log, trace or page gives away:
folders, hosts, the base model's name and architecture, sizes and training parameters as key and value, the number of
parameters, libraries with their versions, and tracebacks. A key without its value, a library without its version and a
number that could be any are no finding: documents are about such things too.
"""

from __future__ import annotations

import json
import platform
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nightshift.versions import pinned

ROOTS = ("home", "root", "tmp", "usr", "opt", "var", "etc", "mnt", "srv")  # folders at the top that no answer names
TRACE = r'Traceback \(most recent call last\)|File "[^"\n]+", line \d+'
SERVER = r"^server: *\S+"
BETWEEN = r"""[\s"'`:=(,]{1,5}"""  # a key and its value, as JSON, YAML, keywords and prose write them
AT = r"[ /=@v-]{1,4}"  # a library and its version
SHORTEST_KEY, SHORTEST_NUMBER = 4, 6  # shorter ones stand in any text
PLAIN = {"plain", "prompt", "lora", "float32", "bfloat16", "cpu", "cuda", "none", "unknown", "ours", "small", "folder"}


@dataclass(frozen=True)
class Private:
    """Patterns by kind: folder, host, architecture, setting, library, trace."""

    patterns: Mapping[str, re.Pattern[str]]

    @classmethod
    def of(
        cls,
        system: Path,
        lock: str,
        folders: Iterable[Path] = (),
        hosts: Iterable[str] = (),
        training: Mapping[str, Any] | None = None,
    ) -> Private:
        """Of a system folder, with the lock's libraries, more folders and hosts, and sections of params.yaml."""
        base = system / "base"
        config = json.loads((base / "config.json").read_text())
        facts = json.loads((base / "facts.json").read_text())
        adapter = system / "adapter" / "adapter_config.json"
        tuned = json.loads(adapter.read_text()) if adapter.is_file() else {}
        paths = {str(one) for place in (system, *folders) for one in (place, place.resolve())}
        known = {socket.gethostname(), socket.getfqdn(), *hosts} - {"localhost", "localhost.localdomain", ""}
        words = [*config.get("architectures", []), config.get("model_type"), config.get("_name_or_path")]
        words += [facts.get("name"), facts.get("origin"), facts.get("architecture")]
        counts = [re.escape(f"{facts['parameters']:{form}}") for form in ("d", ",", "_")]
        named = [re.escape(str(one)) for one in words if one and str(one).lower() not in PLAIN]
        pairs = {**_pairs(config), **_pairs(tuned), **_pairs(training or {})}
        libraries = {**pinned(lock), "python": platform.python_version(), "cpython": platform.python_version()}
        parts = [rf"{_name(name)}{AT}{re.escape(version)}" for name, version in libraries.items()]
        parts.append(rf"c?python{AT}3\.\d+")
        return cls(
            {
                "folder": _any(
                    [*map(re.escape, paths), rf"(?<![\w./:-])/(?:{'|'.join(ROOTS)})/[\w.-]+", "site-packages"]
                ),
                "host": _any([rf"\b{re.escape(one)}\b" for one in known]),
                "architecture": _any(rf"(?<!\w){one}(?!\w)" for one in (*named, *_long(counts))),
                "setting": _any(rf"(?<!\w){re.escape(key)}{BETWEEN}{value}(?![\w.])" for key, value in pairs.items()),
                "library": _any(rf"(?<!\w){one}" for one in parts),
                "trace": re.compile(f"{TRACE}|{SERVER}", re.IGNORECASE | re.MULTILINE),
            }
        )

    def found(self, text: str) -> list[str]:
        """What a text gives away: kind and words of each, in order of kind."""
        return [f"{kind}: {hit[0]}" for kind, pattern in self.patterns.items() for hit in pattern.finditer(text)]


def _pairs(said: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Key → pattern of its value, of every number and word that is no commonplace, nested ones too."""
    found: dict[str, str] = {}
    for key, value in said.items():
        if isinstance(value, Mapping):
            found |= _pairs(value, key)
        elif isinstance(value, bool) or value is None or len(key) < SHORTEST_KEY:
            continue
        elif isinstance(value, int | float):
            found[key] = rf"(?:{'|'.join(sorted(map(re.escape, _written(value))))})"
        elif isinstance(value, str) and value.lower() not in PLAIN:
            found[key] = re.escape(value)
    return found


def _written(value: float) -> Iterator[str]:
    """How a number may stand in a text."""
    yield from {repr(value), f"{value:g}", f"{value:,}", f"{value:e}", f"{value:.0e}"}


def _long(numbers: Iterable[str]) -> Iterator[str]:
    return (one for one in numbers if sum(letter.isdigit() for letter in one) >= SHORTEST_NUMBER)


def _name(distribution: str) -> str:
    """A distribution's name, whichever way its words are joined."""
    return r"[-_. ]".join(re.escape(part) for part in re.split(r"[-_.]", distribution))


def _any(patterns: Iterable[str]) -> re.Pattern[str]:
    """One pattern for all; for none, one that is found nowhere."""
    return re.compile("|".join(patterns) or r"(?!)", re.IGNORECASE)
