"""What was measured, as lines to read: beside each figure the goal, where it has one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

WIDTHS = (52, 12, 29, 12, 10)
HEAD = ("", "ours", "beside", "", "ratio")


def text(found: Mapping[str, Any]) -> str:
    """The table of every part that was measured."""
    lines = [HEAD]
    for part, said in found.items():
        for one in said if isinstance(said, list) else [said]:
            lines += PARTS[part](one)
    return "".join(line(row) for row in lines)


def line(row: tuple[str, ...]) -> str:
    """One line; the name on the left, figures on the right."""
    _, *others = (word.rjust(width) for word, width in zip(row, WIDTHS, strict=True))
    return f"{row[0].ljust(WIDTHS[0])}{''.join(others)}  ".rstrip() + "\n"


def parse(one: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for kind in ("first", "cached"):
        seconds = one[f"{kind}_s"]
        for peer in ("by hand", "cosmos"):
            goal = {"by hand": " (goal 1.5)", "cosmos": " (goal < 1)"}[peer] if kind == "cached" else ""
            ratio = one[f"{kind}_times_{peer.replace(' ', '_')}"]
            name = f"parse of {one['tasks'] - 3} stages, {kind}{goal}"
            yield name, f"{seconds['ours']:.3f} s", peer, f"{seconds[peer]:.3f} s", f"{ratio:.2f}"
    for peer in ("by hand", "cosmos"):
        cpu = one["cached_cpu_s"]
        yield (
            "  its processor time",
            f"{cpu['ours']:.3f} s",
            peer,
            f"{cpu[peer]:.3f} s",
            f"{cpu['ours'] / cpu[peer]:.2f}",
        )
    cached = one["cached_s"]
    yield (
        "  where the engine is no plugin of Airflow's",
        f"{cached['no plugin']:.3f} s",
        "by hand",
        f"{cached['by hand']:.3f} s",
        f"{cached['no plugin'] / cached['by hand']:.2f}",
    )
    size = one["serialised_bytes"]
    kib = {name: f"{held / 1024:.0f} KiB" for name, held in size.items()}
    yield "  in Airflow's database", kib["ours"], "by hand", kib["by hand"], f"{size['ours'] / size['by hand']:.2f}"


def publication(one: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    names = {
        "publish": "publish (goal 2 s)",
        "publish_nothing_new": "publish of nothing new",
        "read_first": "pin: read the project, first",
        "read_kept": "pin: read the project, cached",
        "newest_entries": "pin: find the newest entries",
        "lacking": "pin: look for deps that nobody has",
        "dump": "pin: write what it returns",
        "task_loads": "each task: read that",
    }
    for key, name in names.items():
        yield f"{one['stages']} stages: {name}", f"{one['seconds'][key]:.3f} s", "", "", ""
    yield "  what each task reads of the pin", f"{sum(one['xcom_bytes'].values()) / 1024:.0f} KiB", "", "", ""


def stage(one: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    ratio = f"{one['overhead_s']:+.2f} s"
    yield (
        f"a stage of {one['stages']} that ran, outside Airflow (goal +1 s)",
        f"{one['ours_s']:.2f} s",
        "dvc repro -s",
        f"{one['dvc_repro_s']:.2f} s",
        ratio,
    )


def files(one: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for key, name in (("", "that ran"), ("unchanged_", "unchanged")):
        ours, peer = one[f"{key}ours_s"], one[f"{key}dvc_repro_s"]
        what = f"a stage of {one['files']} files, {name}"
        yield what, f"{ours:.2f} s", "dvc repro -s", f"{peer:.2f} s", f"{one[f'{key}times']:.2f}"


def deps(one: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    ours, peer = one["ours_s"], one["dvc_repro_s"]
    what = f"a dep of {one['megabytes'] / 1000:g} GB, cache.type {one['cache_type']}"
    yield what, f"{ours:.2f} s", "dvc repro -s", f"{peer:.2f} s", f"{ours - peer:+.2f} s"


def nights(one: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    what = f"a night of {one['stages']} stages, unchanged (goal 1.25)"
    yield what, f"{one['ours_median_s']:.2f} s", "empty tasks", f"{one['empty_median_s']:.2f} s", f"{one['times']:.2f}"
    ours, empty = one["cpu_s"]["ours"], one["cpu_s"]["empty"]
    yield "  all of Airflow's processor time", f"{ours:.1f} s", "empty tasks", f"{empty:.1f} s", f"{ours / empty:.2f}"
    ours, empty = one["task_s"]["ours"], one["task_s"]["empty"]
    yield "  a stage's task of it", f"{ours:.2f} s", "empty task", f"{empty:.2f} s", f"{ours / empty:.2f}"


def practice(one: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    what = f"{one['stages']} stages of 1 s, {one['kind']}"
    peer, times = "BashOperator, dvc repro -s", 1 / one["times_faster"]
    yield what, f"{one['ours_median_s']:.1f} s", peer, f"{one['usual_median_s']:.1f} s", f"{times:.2f}"
    over = one["task_over_its_command_s"]
    name = "  a task over its command (goal 1 s)"
    yield name, f"{over['ours']:.2f} s", peer, f"{over['usual']:.2f} s", f"{over['ours'] / over['usual']:.2f}"


def fan(one: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for kind in ("ran", "unchanged"):
        mb = one[f"{kind}_mb"]
        memory = ", ".join(f"{name} {held} MB" for name, held in mb.items() if held)
        yield f"a matrix of {one['stages']}, {kind}", f"{one[f'{kind}_s']:.1f} s", "", "", ""
        yield f"  memory at most: {memory}", "", "", "", ""


PARTS: Mapping[str, Callable[[Any], Iterator[tuple[str, ...]]]] = {
    one.__name__: one for one in (parse, publication, stage, files, deps, nights, practice, fan)
}
