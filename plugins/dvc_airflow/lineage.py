"""What others are told of a stage that has ended: those who wait for an asset, and OpenLineage.

OpenLineage is told what it read and made, in which versions, by which code of which commit.
Airflow's OpenLineage provider asks the operator for it; without that provider nothing of it is imported. Names follow
OpenLineage's naming: a URL is the store's, a path outside the repository a file's. A path of the project is a file of
the checkout of record too, or, where nights are published at a remote, `dvc://host/path-of-the-repository` and the path
in it, which is the same from every worker.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dvc_engine.pipeline.project import Stage, outside
from dvc_engine.stage.outcome import Night, Result, numbers
from dvc_engine.store import web

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage

    from dvc_airflow.settings import Settings


def events(stage: Stage, result: Result, commit: str, paths: Iterable[str]) -> Iterator[dict[str, Any]]:
    """What the event of each out's asset carries: md5, size, commit, outcome, and what it holds of metrics."""
    made = {stage.at(out["path"]): out for out in (result.entry or {}).get("outs") or []}
    for path in paths:
        about = {key: value for key, value in made.get(path, {}).items() if key in ("md5", "size", "nfiles")}
        metrics = numbers({path: result.files[path]} if path in result.files else {})
        told = about | {"commit": commit, "outcome": result.outcome}
        yield told | ({"metrics": metrics} if metrics else {})


def wanted() -> bool:
    """Whether Airflow's OpenLineage provider is there, and told where its events go."""
    try:
        from airflow.providers.openlineage.conf import is_disabled
    except ImportError:
        return False
    return not is_disabled()


def of(stage: Stage, night: Night, result: Result, settings: Settings) -> OperatorLineage:
    """The lineage of a stage that has ended; one that did not end well has made nothing."""
    from airflow.providers.openlineage.conf import is_source_enabled
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.facet_v2 import source_code_job, source_code_location_job

    address = web.address(settings.repository.path, settings.remote)
    entry, place = result.entry or {}, _place(night, address)
    page = settings.web.of(night.commit)
    about: dict[str, Any] = {
        "sourceCodeLocation": source_code_location_job.SourceCodeLocationJobFacet(
            type="git",
            url=page or f"file://{night.repository}",
            repoUrl=address or f"file://{night.repository}",
            path=posixpath.join(night.folder, stage.file),
            version=night.commit,
        )
    }
    if stage.cmd and is_source_enabled():
        cmd = stage.cmd if isinstance(stage.cmd, str) else "\n".join(stage.cmd)
        about["sourceCode"] = source_code_job.SourceCodeJobFacet(language="shell", sourceCode=cmd)
    said = {part: {stage.at(one["path"]): one for one in entry.get(part) or []} for part in ("deps", "outs")}
    return OperatorLineage(
        inputs=[_input(place, path, said["deps"].get(path, {})) for path in stage.deps],
        outputs=[_output(place, out.path, said["outs"].get(out.path, {})) for out in stage.outs] if entry else [],
        job_facets=about,
    )


def _place(night: Night, address: str) -> tuple[str, str]:
    """Namespace of the project's paths, and what stands before one in its name."""
    found = web.located(address)
    return (f"dvc://{found[0]}/{found[1]}", night.folder) if found else ("file", str(night.root))


def _named(place: tuple[str, str], path: str) -> dict[str, str]:
    if "://" in path:
        url = urlsplit(path)
        return {"namespace": f"{url.scheme}://{url.netloc}", "name": url.path.lstrip("/") or "/"}
    namespace, folder = ("file", "") if outside(path) else place
    return {"namespace": namespace, "name": posixpath.normpath(posixpath.join(folder, path))}


def _facets(path: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """Version and storage of a dep or an out, as dvc.lock has it."""
    from openlineage.client.facet_v2 import dataset_version_dataset, storage_dataset

    kind = "directory" if said.get("nfiles") else PurePosixPath(path).suffix.lstrip(".")
    found: dict[str, Any] = {
        "storage": storage_dataset.StorageDatasetFacet(storageLayer="dvc", fileFormat=kind or None)
    }
    if version := next((said[key] for key in ("md5", "etag", "checksum") if said.get(key)), None):
        found["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=str(version))
    return found


def _counted(said: Mapping[str, Any]) -> dict[str, int]:
    return {"size": int(said["size"]), "fileCount": int(said.get("nfiles") or 1)} if "size" in said else {}


def _input(place: tuple[str, str], path: str, said: Mapping[str, Any]) -> Any:
    from openlineage.client.event_v2 import InputDataset
    from openlineage.client.facet_v2 import input_statistics_input_dataset

    counted = _counted(said)
    statistics: Any = input_statistics_input_dataset.InputStatisticsInputDatasetFacet
    facets = {"inputStatistics": statistics(**counted)} if counted else {}
    return InputDataset(**_named(place, path), facets=_facets(path, said), inputFacets=facets)


def _output(place: tuple[str, str], path: str, said: Mapping[str, Any]) -> Any:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import output_statistics_output_dataset

    counted = _counted(said)
    statistics: Any = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet
    facets = {"outputStatistics": statistics(**counted)} if counted else {}
    return OutputDataset(**_named(place, path), facets=_facets(path, said), outputFacets=facets)
