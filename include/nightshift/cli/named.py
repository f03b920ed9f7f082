"""Whether what params.yaml names is there: folders, packages, objectives, certificates.

A night and `serve` refuse these when they come to them; `nightshift check` says so before, with the line. Buckets are
not asked: that takes a network, and keys that may be another machine's.
"""

from __future__ import annotations

from nightshift import openslo, params
from nightshift.errors import ParamsError, SourceError
from nightshift.place import Place


def check(place: Place) -> None:
    """Raises ParamsError, AccessDenied for the first thing that cannot be used."""
    from nightshift.serve import exposure
    from nightshift.serving import Listen

    _sources(place)
    _objectives(place)
    file = place.root / params.FILE
    exposure.check(file, params.load(file, Listen).within(place.root))


def _sources(place: Place) -> None:
    from nightshift.data import source
    from nightshift.sections import Sources
    from nightshift.sources import FolderSource, PackagesSource

    file, lock = place.root / params.FILE, (place.root / "requirements.txt").read_text(encoding="utf-8")
    for number, one in enumerate(params.load(file, Sources).items):
        keys = ("sources", "items", number)
        if isinstance(one, FolderSource) and not (place.sources / one.path).is_dir():
            what = f"sources.items.{number}.path: there is no folder {place.sources / one.path}"
            raise ParamsError(what, params.where(file, *keys, "path"), "make it, or mend its path")
        for at, name in enumerate(one.packages if isinstance(one, PackagesSource) else []):
            try:
                source.installed(name, lock)
            except SourceError as error:
                what = f"sources.items.{number}.packages.{at}: {error.what}"
                raise ParamsError(what, params.where(file, *keys, "packages", at), error.do) from None


def _objectives(place: Place) -> None:
    from nightshift.deployment import Environments

    file = place.root / params.FILE
    for number, one in enumerate(params.load(file, Environments).items):
        if not (place.root / openslo.POLICIES / one.slo).is_dir():
            what = f"environments.items.{number}.slo: there is no folder {openslo.POLICIES / one.slo}"
            where = params.where(file, "environments", "items", number, "slo")
            raise ParamsError(what, where, "write its objectives there, or name others")
