"""Metrics of generated answers, as modules of Hugging Face's `evaluate`, loaded by path.

A metric is a file in include/evals with an `evaluate.Metric` that compares one prediction with one reference and
returns a number under the file's name; a new one is a new file, named in dvc.yaml. A metric's *name* would be fetched
from a hub and fails offline, so that only files are taken.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from nightshift import commit
from nightshift.errors import ParamsError

COPIES = "evaluate_modules"  # the package that `evaluate` makes of them
Metric = Callable[[str, str], float]  # (prediction, reference) → value


@contextmanager
def loaded(files: Sequence[Path]) -> Iterator[Mapping[str, Metric]]:
    """The metrics of these files, by name. Raises ParamsError for a file that holds none."""
    import evaluate

    with tempfile.TemporaryDirectory() as scratch:  # the library copies modules and answers to where it can write
        evaluate.config.HF_MODULES_CACHE = scratch
        try:
            yield {file.stem: _metric(evaluate, commit.check(file), scratch) for file in files}
        finally:
            _forget(scratch)


def _forget(scratch: str) -> None:
    """Take the copies out of Python's memory: the next ones come from another folder."""
    sys.path[:] = [one for one in sys.path if one != scratch]
    for name in [one for one in sys.modules if one.partition(".")[0] == COPIES]:
        del sys.modules[name]


def _metric(evaluate: object, file: Path, scratch: str) -> Metric:
    try:
        found = evaluate.load(str(file), cache_dir=scratch, keep_in_memory=True)  # type: ignore[attr-defined]
    except (ImportError, SyntaxError, AttributeError, TypeError) as error:
        raise ParamsError(
            f"it is no metric of `evaluate` ({error})", str(file), "see include/evals/exact_match.py"
        ) from None

    def value(prediction: str, reference: str) -> float:
        said = found.compute(predictions=[prediction], references=[reference])
        if file.stem not in said:
            what = f"it gives {', '.join(said)} and not {file.stem}"
            raise ParamsError(what, str(file), "name the file for what it measures")
        return float(said[file.stem])

    return value
