"""What an item of params.yaml's `sources` may be: installed packages, a folder, a prefix of a bucket."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from nightshift.params import Strict

NAME = r"^[a-z0-9-]+$"


class PackagesSource(Strict):
    """Documentation of installed packages: docstrings and READMEs."""

    name: str = Field(pattern=NAME, description="Name of the source; part of every section's id")
    kind: Literal["packages"]
    packages: list[str] = Field(
        min_length=1, description="Distribution names, at the versions of the lock; 'python' is the standard library"
    )
    groups: list[str] = Field(default=["public"], min_length=1, description="Who may see these documents")


class FolderSource(Strict):
    """A folder of Markdown, text and HTML."""

    name: str = Field(pattern=NAME, description="Name of the source; part of every section's id")
    kind: Literal["folder"]
    path: str = Field(description="Folder, relative to NIGHTSHIFT_SOURCES")
    licence: str = Field(default="unknown", description="SPDX expression of these documents")
    groups: list[str] = Field(default=["public"], min_length=1, description="Who may see these documents")


class S3Source(Strict):
    """A prefix of a bucket that holds Markdown, text and HTML."""

    name: str = Field(pattern=NAME, description="Name of the source; part of every section's id")
    kind: Literal["s3"]
    uri: str = Field(pattern=r"^s3://[^/]+(/.*)?$", description="s3://bucket/prefix; its endpoint is an AWS setting")
    licence: str = Field(default="unknown", description="SPDX expression of these documents")
    groups: list[str] = Field(default=["public"], min_length=1, description="Who may see these documents")
