"""The image runs what the lock says, as nobody in particular; telemetry is off everywhere."""

from __future__ import annotations

import re
from pathlib import Path

OFF = {"HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK", "DVC_NO_ANALYTICS", "GX_ANALYTICS_ENABLED"}


def instructions(root: Path) -> list[tuple[str, str]]:
    """(instruction, arguments) of the Dockerfile, lines joined, comments left out."""
    text = re.sub(r"(?m)^#.*\n", "", (root / "Dockerfile").read_text())
    lines = [line.strip() for line in re.sub(r"\\\n", " ", text).splitlines() if line.strip()]
    return [(line.split()[0], " ".join(line.split()[1:])) for line in lines]


def test_it_is_a_dockerfile_of_known_instructions(root: Path) -> None:
    found = instructions(root)
    known = {"FROM", "RUN", "USER", "WORKDIR", "COPY", "ENV", "ENTRYPOINT", "CMD"}
    assert {name for name, _ in found} <= known
    assert found[0][0] == "FROM"
    assert [name for name, _ in found].count("CMD") == 1


def test_the_base_is_pinned_to_the_projects_python(root: Path) -> None:
    (image,) = [words for name, words in instructions(root) if name == "FROM"]
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", image)


def test_nothing_after_the_system_packages_runs_as_root(root: Path) -> None:
    found = instructions(root)
    user = next(place for place, (name, _) in enumerate(found) if name == "USER")
    assert found[user][1] not in ("root", "0")
    as_root = [words for name, words in found[:user] if name == "RUN"]
    assert all(words.startswith(("apt-get", "useradd")) for words in as_root)
    assert all("--chown=nightshift" in words for name, words in found[user:] if name == "COPY")


def test_it_installs_by_the_same_command_as_a_laptop_and_no_secrets_go_in(root: Path) -> None:
    assert ("RUN", "make environment") in instructions(root)
    ignored = (root / ".dockerignore").read_text().split()
    assert {".git", "var", "sources", ".airflow", "**/*.pem"} <= set(ignored)


def test_every_file_that_is_copied_exists(root: Path) -> None:
    for name, words in instructions(root):
        if name == "COPY":
            assert [one for one in words.split()[1:-1] if not (root / one).exists()] == []


def test_telemetry_is_off_for_every_way_to_run(root: Path) -> None:
    names = set(re.findall(r"(?m)^([A-Z_]+)=", (root / "deploy" / "telemetry.env").read_text()))
    assert names >= OFF
    for file in ("Makefile", "deploy/entrypoint.sh"):
        assert "telemetry.env" in (root / file).read_text()
    assert "telemetry.env" in (root / "include" / "nightshift" / "airflow.py").read_text()
