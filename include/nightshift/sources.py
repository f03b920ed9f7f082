"""What an item of params.yaml's `sources` may be: installed packages, a folder, a prefix of a bucket."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from nightshift.params import Strict

NAME = r"^[a-z0-9-]+$"
GROUP = re.compile(r"[\w.-]+")  # of a source here, and of a key of the endpoint: the one lets the other see


def _group(name: str) -> str:
    if not GROUP.fullmatch(name):
        raise ValueError(f"{name!r} is no group; write letters, digits, and any of . _ -")
    return name


Group = Annotated[str, AfterValidator(_group)]


class PackagesSource(Strict):
    """Documentation of installed packages: docstrings and READMEs."""

    name: str = Field(pattern=NAME, description="Name of the source; part of every section's id")
    kind: Literal["packages"]
    packages: list[str] = Field(
        min_length=1, description="Distribution names, at the versions of the lock; 'python' is the standard library"
    )
    groups: list[Group] = Field(default=["public"], min_length=1, description="Who may see these documents")


class FolderSource(Strict):
    """A folder of Markdown, text and HTML."""

    name: str = Field(pattern=NAME, description="Name of the source; part of every section's id")
    kind: Literal["folder"]
    path: str = Field(description="Folder, relative to NIGHTSHIFT_SOURCES")
    licence: str = Field(default="unknown", description="SPDX expression of these documents")
    groups: list[Group] = Field(default=["public"], min_length=1, description="Who may see these documents")


class S3Source(Strict):
    """A prefix of a bucket that holds Markdown, text and HTML."""

    name: str = Field(pattern=NAME, description="Name of the source; part of every section's id")
    kind: Literal["s3"]
    uri: str = Field(pattern=r"^s3://[^/]+(/.*)?$", description="s3://bucket/prefix; its endpoint is an AWS setting")
    licence: str = Field(default="unknown", description="SPDX expression of these documents")
    groups: list[Group] = Field(default=["public"], min_length=1, description="Who may see these documents")
