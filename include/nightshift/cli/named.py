"""Whether what params.yaml names is there, and goes together: folders, packages, objectives, certificates, the engine.

A night and `serve` refuse these when they come to them; `nightshift check` says so before, with the line. Buckets are
not asked: that takes a network, and keys that may be another machine's.
"""

from __future__ import annotations

from nightshift import openslo, params
from nightshift.errors import ParamsError, SourceError
from nightshift.params import Document
from nightshift.place import Place


def check(place: Place) -> None:
    """What the endpoint uses. Raises ParamsError, AccessDenied for the first thing that cannot be used."""
    from nightshift.serve import exposure
    from nightshift.serving import Listen

    file = place.root / params.FILE
    said = params.Document(file)
    _objectives(place, said)
    _pattern(place, said)
    _engine(said)
    exposure.check(file, said.load(Listen).within(place.root))


def sources(place: Place) -> None:
    """What nights read. Raises ParamsError for the first folder or package that is not there."""
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


def _pattern(place: Place, said: Document) -> None:
    """Raises ParamsError for answers about the deployment that cannot be meant together."""
    from nightshift.deployment import Deployment
    from nightshift.release.pattern import TABLE, Table, meant
    from nightshift.sections import Compute

    answers, device = said.load(Deployment), said.load(Compute).device
    try:
        meant(Table.read(place.root / TABLE), answers, device, "unknown")
    except ParamsError as error:
        raise ParamsError(f"{error.where}: {error.what}", params.where(said.path, "deployment"), error.do) from None


def _engine(said: Document) -> None:
    """Raises ParamsError for an engine that does not run on the device that is named."""
    from nightshift.sections import Compute
    from nightshift.serving import Engines

    if said.load(Engines).kind == "vllm" and said.load(Compute).device == "cpu":
        what = "serve.engine.kind: vllm takes a GPU, and compute.device is cpu"
        raise ParamsError(
            what, params.where(said.path, "serve", "engine", "kind"), "name openvino, or compute.device: cuda"
        )


def _objectives(place: Place, said: Document) -> None:
    """Raises ParamsError for an environment whose objectives are not there, or cannot be read."""
    from nightshift.deployment import Environments

    items = said.load(Environments).items
    for number, one in enumerate(items):
        if not (place.root / openslo.POLICIES / one.slo).is_dir():
            what = f"environments.items.{number}.slo: there is no folder {openslo.POLICIES / one.slo}"
            where = params.where(said.path, "environments", "items", number, "slo")
            raise ParamsError(what, where, "write its objectives there, or name others")
    for folder in dict.fromkeys(one.slo for one in items):
        openslo.read(place.root / openslo.POLICIES / folder)
