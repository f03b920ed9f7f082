"""The sections and the prompt of one release, as one asker may see them, for whichever framework asks.

Opened from a folder, or from a checkout: the release in production there, or any other by its digest, checked against
its manifest, its digest and its signature as the endpoint does. The groups of the asker are fixed when it is opened; a
filter narrows what they see and never widens it. Nothing here needs torch: a release that searches by meaning too asks
the endpoint for the vector of a question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nightshift import answer, commit, encode, registry
from nightshift.answer import System
from nightshift.errors import ReleaseInvalid, UsageError
from nightshift.integrations.endpoint import Endpoint
from nightshift.registry import PROD, Release
from nightshift.retrieve import EVERY, PUBLIC, Filter, Hit, Index
from nightshift.store import Store

SECTIONS = 3  # that are searched for where the release itself answers without any


@dataclass(frozen=True)
class Corpus:
    """An opened release for one asker; it may be searched from several threads."""

    system: System
    digest: str  # sha256 of the release; of the system, where that was opened alone
    version: str  # "" where a folder was opened
    groups: tuple[str, ...]  # of the asker

    @classmethod
    def open(
        cls, folder: Path | str, groups: Sequence[str] = PUBLIC, endpoint: Endpoint | None = None, version: str = ""
    ) -> Corpus:
        """Open the folder of a release, or of a system.

        Raises SourceError when it is not there, CacheCorrupt when a file differs from its manifest, ReleaseInvalid when
        it is neither, UsageError when it searches by meaning and there is neither torch nor an endpoint.
        """
        path = commit.check(Path(folder))
        system = System.open(path / "system" if (path / "system").is_dir() else path)
        if system.index.dense_weight:
            _search_by_meaning(system, endpoint)
        return cls(system, commit.digest(path), version, tuple(groups))

    @classmethod
    def released(
        cls,
        root: Path | str,
        groups: Sequence[str] = PUBLIC,
        endpoint: Endpoint | None = None,
        *,
        digest: str | None = None,
        environment: str = PROD,
        state: Path | None = None,
        home: Path | None = None,
    ) -> Corpus:
        """Open the release that a checkout has in an environment, or the one with this digest.

        `state` and `home` are NIGHTSHIFT_STATE and NIGHTSHIFT_HOME; left out, where a checkout has them. What the
        endpoint fetched before is not fetched again. Raises ReleaseInvalid when there is none or it does not hold,
        StorageError when it is not to be had, and what `open` raises.
        """
        at = Path(root).resolve()
        release = registry.by_digest(at, digest) if digest else registry.current(at, environment)
        if release is None:
            what = f"no release has the digest {digest}" if digest else f"nothing is in {environment}"
            raise ReleaseInvalid(what, str(at), "run a night, or look into `git tag --list 'nightshift@*'`")
        folder = _verified(at, release, state or at / ".nightshift", home or at / "var")
        return cls.open(folder, groups, endpoint, release.version)

    def search(self, question: str, k: int | None = None, only: Filter = EVERY) -> list[Hit]:
        """The best `k` sections, best first; as many as the release answers from when `k` is left out."""
        return self.system.index.search(question, k or self.system.settings["sections"] or SECTIONS, self.groups, only)

    def nearest(self, vector: Sequence[float], k: int | None = None, only: Filter = EVERY) -> list[Hit]:
        """The `k` sections whose vectors are nearest to this one. Raises UsageError for another width, or none."""
        asked: npt.NDArray[np.float32] = np.asarray(vector, dtype=np.float32)
        if not self.system.index.dense.any():
            raise UsageError("this release has no vectors", "nearest()", "search it by a question")
        width = self.system.index.vectors.shape[1]
        if asked.shape != (width,):
            raise UsageError(f"a vector of {asked.size} numbers", "nearest()", f"sections have vectors of {width}")
        return self.system.index.nearest(asked, k or self.system.settings["sections"] or SECTIONS, self.groups, only)

    def section(self, identifier: str) -> Hit | None:
        """The section with this id; None where there is none that the asker may see."""
        row = self._rows.get(identifier)
        return None if row is None or not self._seen[row] else self.system.index.hit(row, 0.0)

    def sections(self, only: Filter = EVERY) -> list[Hit]:
        """Every section that the asker may see and that passes the filter, in the order of ids."""
        index = self.system.index
        return [index.hit(int(row), 0.0) for row in np.flatnonzero(self._seen & only.rows(index.sections))]

    def about(self, hit: Hit) -> dict[str, Any]:
        """Where a section comes from: JSON values, none of them its text or who may see it."""
        row = self.system.index.sections.row(self._rows[hit.id], named=True)
        kept = {name: row[name] for name in ("id", "title", "source", "path", "document", "licence")}
        return kept | {"release": self.digest, "version": self.version}

    def vector(self, hit: Hit) -> list[float] | None:
        """The section's vector; None where it has none."""
        index, row = self.system.index, self._rows[hit.id]
        return [float(one) for one in index.vectors[row]] if index.dense[row] else None

    def shown(self, hits: Sequence[Hit]) -> str:
        """The sections as the release shows them to its model: what stands in the place {sections} of its prompt."""
        return answer.shown(self.system.template, [(hit.title, self.system.cut(hit.body)) for hit in hits])

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {identifier: row for row, identifier in enumerate(self.system.index.sections["id"])}

    @cached_property
    def _seen(self) -> npt.NDArray[np.bool_]:
        return self.system.index.seen_by(self.groups)


class Distant:
    """The encoder of an index, as its endpoint has it loaded.

    The endpoint reads 512 tokens of a text, an index fewer: texts are cut here, where a token ends. Vectors are those
    of `encode.Encoder`, but of a text whose last word is cut in two, which may be made of other tokens then.
    """

    def __init__(self, endpoint: Endpoint, index: Index) -> None:
        self.endpoint = endpoint
        self.tokens = encode.tokenizer(index.folder / "encoder")
        self.width = int(index.vectors.shape[1])

    def encode(self, texts: Sequence[str], first_tokens: int) -> encode.Vectors:
        """Vectors of the first tokens of each text, (texts, width). Raises AccessDenied, StorageError."""
        found = encode.cut(self.tokens, texts, first_tokens)
        shorter = [text[: max(end for _, end in one.offsets)] for text, one in zip(texts, found, strict=True)]
        return self.endpoint.vectors(shorter).astype(np.float16)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, whole."""
        return [len(one.ids) for one in encode.cut(self.tokens, texts, encode.BUCKETS[-1] + 1)]


def _search_by_meaning(system: System, endpoint: Endpoint | None) -> None:
    """Let the index ask the endpoint for a question's vector, where there is one. Raises UsageError without either."""
    if endpoint is not None:
        system.index.encoder = Distant(endpoint, system.index)
    elif find_spec("torch") is None or find_spec("transformers") is None:
        what = "this release searches by meaning too, and torch and transformers are not installed here"
        raise UsageError(what, str(system.folder), "give the endpoint that serves it, or install them")


def _verified(root: Path, release: Release, state: Path, home: Path) -> Path:
    """The release's folder, fetched if need be, with its signature checked."""
    try:
        return Store(root, home, state).trusted(release)[0]
    except ModuleNotFoundError as error:
        do = "install it, start the endpoint once (it fetches the release), or open the release's folder"
        raise UsageError(f"{error.name} is not installed here", release.version, do) from None
