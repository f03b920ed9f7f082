"""Lines are bounded by bytes and by age, and a torn one harms no other."""

from __future__ import annotations

import multiprocessing
import resource
from pathlib import Path

import pytest

from nightshift import segments
from nightshift.segments import DAY_S, Segments

NOW = 1_790_000_000.0


def test_old_files_go_by_bytes(tmp_path: Path) -> None:
    kept = Segments(tmp_path, "gateway", segment_bytes=1000, total_bytes=5000)
    for second in range(400):
        kept.append(b"x" * 99 + b"\n", NOW + second)
    found = segments.files(tmp_path)
    assert sum(path.stat().st_size for path in found) <= 5000 + 1100
    assert len(found) > 3
    assert next(segments.lines(found[-1])) == b"x" * 99


def test_old_files_go_by_age_and_others_stay(tmp_path: Path) -> None:
    old, other = Segments(tmp_path, "gateway", days=2), Segments(tmp_path, "stage", days=9)
    for days, line in ((0, b"old\n"), (1.5, b"newer\n"), (3, b"new\n")):
        for one in (old, other):
            one.append(line, NOW + days * DAY_S)
    assert [path.read_bytes() for path in segments.files(tmp_path, "gateway")] == [b"newer\n", b"new\n"]
    assert [path.read_bytes() for path in segments.files(tmp_path, "stage")] == [b"old\n", b"newer\n", b"new\n"]


def test_the_last_file_goes_too_when_nothing_is_written_any_more(tmp_path: Path) -> None:
    kept = Segments(tmp_path, "content", days=7)
    kept.append(b"words\n", NOW)
    kept.prune(NOW + 6.9 * DAY_S)
    assert segments.files(tmp_path)
    kept.prune(NOW + 7.1 * DAY_S)
    assert segments.files(tmp_path) == []


def test_a_file_is_gone_on_with_and_a_torn_line_is_closed(tmp_path: Path) -> None:
    Segments(tmp_path, "gateway").append(b"one\n", NOW)
    (path,) = segments.files(tmp_path)
    with path.open("ab") as torn:
        torn.write(b"tw")  # the machine died here
    assert list(segments.lines(path)) == [b"one"]
    Segments(tmp_path, "gateway").append(b"three\n", NOW + 1)
    assert segments.files(tmp_path) == [path]
    assert list(segments.lines(path)) == [b"three", b"tw", b"one"]
    assert list(segments.lines(path, b"thr")) == [b"three"]
    assert list(segments.lines(path, b"e")) == [b"three", b"one"]


def test_a_disk_that_takes_half_a_line_is_an_error(tmp_path: Path) -> None:
    kept = Segments(tmp_path, "feedback")
    kept.append(b"one\n", NOW)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6, hard))
    try:
        with pytest.raises(OSError, match="No space left"):
            kept.append(b"two\n", NOW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (path,) = segments.files(tmp_path)
    assert path.read_bytes() == b"one\ntw"
    kept.append(b"three\n", NOW)
    assert list(segments.lines(path)) == [b"three", b"tw", b"one"]


def test_a_file_that_was_taken_away_is_made_again(tmp_path: Path) -> None:
    kept = Segments(tmp_path / "traces", "gateway")
    kept.append(b"one\n", NOW)
    segments.files(tmp_path / "traces")[0].unlink()
    kept.append(b"two\n", NOW + 1)
    assert list(segments.lines(segments.files(tmp_path / "traces")[0])) == [b"two"]


def _append(folder: Path, word: bytes) -> None:
    kept = Segments(folder, "stage", segment_bytes=4096)
    for place in range(200):
        kept.append(word * 50 + b"\n", NOW + place)


def test_processes_append_whole_lines_side_by_side(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    todo = [context.Process(target=_append, args=(tmp_path, word)) for word in (b"a", b"b", b"c")]
    for one in todo:
        one.start()
    for one in todo:
        one.join()
    found = [line for path in segments.files(tmp_path) for line in segments.lines(path)]
    assert sorted(found) == sorted(word * 50 for word in (b"a", b"b", b"c") for _ in range(200))
