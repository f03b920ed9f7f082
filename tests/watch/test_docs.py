"""The page about traces says what is: its parameters are params.yaml's, its commands take what it gives them."""

from __future__ import annotations

import re
from pathlib import Path

from nightshift.otlp import Background, FileSink
from nightshift.segments import Segments
from nightshift.spans import Tracer
from tests import command
from tests.watch import released
from tests.watch.released import Released


def page(root: Path) -> str:
    return (root / "docs" / "traces.md").read_text()


def test_its_parameters_are_those_of_params_yaml(root: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", page(root), flags=re.S)
    assert block in (root / "params.yaml").read_text()


def test_its_trace_commands_run_and_its_replay_commands_are_ones(root: Path, project: Released) -> None:
    tracer = Tracer("nightshift-gateway", [Background(FileSink(Segments(project.traces, "gateway")), 10)])
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"  # the trace that the page names
    with tracer.request("chat", parent) as noted:
        released.noted(noted, project, "Who oils the pump?")
    tracer.close()
    lines = [line for block in re.findall(r"```sh\n(.*?)```", page(root), flags=re.S) for line in block.splitlines()]
    known = {name: project.run(name, "--help").stdout for name in ("trace", "replay")}
    for line in lines:
        _, name, *words = line.partition("#")[0].split()
        if name == "trace":
            ended = command.run(project.folder, name, *words)
            assert ended.returncode == 0, ended.stderr
        for word in words:
            assert not word.startswith("--") or word in known[name]
    assert {line.split()[1] for line in lines if line} == {"trace", "replay"}


def test_every_page_that_it_links_to_exists(root: Path) -> None:
    for name in ("traces.md", "langfuse.md"):
        linked = re.findall(r"\]\((?!https?:)([^)#]+)\)", (root / "docs" / name).read_text())
        assert linked
        assert [one for one in linked if not (root / "docs" / one).exists()] == []
