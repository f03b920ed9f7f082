"""One way to read params.yaml; what each section holds stands in sections.py.

Sections are strict: an unknown key, a wrong type, a value out of range, NaN or a key that stands twice is refused
with file, line and what is allowed. YAML is 1.2 (`1e-3` is a number, `no` is text). A stage loads its own sections
and no other. `profiles` holds overlays by name (`laptop`, `tiny`, `gpu`); `apply` writes one into the sections, so
that what DVC compares is always what runs.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from nightshift import commit
from nightshift.errors import ParamsError

FILE = "params.yaml"
OTHER = ("profile", "profiles")  # keys that are no sections
NULL = "tag:yaml.org,2002:null"  # is written as `null`: ruamel.yaml would leave the place empty


class Strict(BaseModel):
    """A part of params.yaml: no unknown keys, no silent conversions, no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Section(Strict):
    """A part of params.yaml with a type of its own, at a key or a dotted path of keys; its name is the class's."""

    name: ClassVar[str]


S = TypeVar("S", bound=Section)
M = TypeVar("M", bound=Strict)


def sections() -> dict[str, type[Section]]:
    """Every section that params.yaml may hold, by name."""
    import nightshift.deployment
    import nightshift.sections
    import nightshift.serving
    import nightshift.tracing
    import nightshift.watching  # noqa: F401  they define them

    return {cls.name: cls for cls in Section.__subclasses__()}


def load(path: Path, section: type[S]) -> S:
    """Read one section. Raises ParamsError with file, line and what is allowed."""
    return Document(path).load(section)


class Document:
    """params.yaml read once, for who needs several of its sections. Raises ParamsError."""

    def __init__(self, path: Path) -> None:
        self.path, self._read = path, _document(path)

    def load(self, section: type[S]) -> S:
        """One section. Raises ParamsError with file, line and what is allowed."""
        return _typed(self.path, self._read, section)


def whole(path: Path, model: type[M]) -> M:
    """Read another file of values, as strictly as params.yaml. Raises ParamsError with file and line."""
    document = _document(path)
    return _valid(path, document, model, document, [])


def check(path: Path) -> None:
    """Read the whole file, its profiles too. Raises ParamsError at the first key that is wrong."""
    document = _document(path)
    known = sections()
    for spine in _maps(document):
        name = ".".join(map(str, spine))
        if not any(one == name or one.startswith(f"{name}.") for one in known):
            do = f"known are {', '.join(sorted([*known, *OTHER]))}"
            raise ParamsError(f"unknown section {name!r}", _at(path, document, spine), do)
    for section in known.values():
        _typed(path, document, section)
    for name in _profiles(path, document):
        overlaid = _overlay(document, document["profiles"][name], path, ["profiles", name])
        for section in known.values():
            _typed(path, overlaid, section, name, document)
    if document.get("profile") not in _profiles(path, document):
        do = f"name one of {', '.join(_profiles(path, document))}"
        raise ParamsError(f"no profile {document.get('profile')!r}", _at(path, document, ["profile"]), do)


def apply(path: Path, profile: str) -> None:
    """Write the overlay `profile` into the sections of params.yaml; comments stay. Raises ParamsError."""
    document = parse(path)
    overlaid = _overlaid(path, document, profile)
    out = io.StringIO()
    _yaml().dump(overlaid, out)
    commit.file(path, out.getvalue())


def overridden(path: Path, profile: str | None, values: Mapping[str, Any]) -> None:
    """Check a file that is right itself with a profile's values and others at dotted keys. Raises ParamsError."""
    document = _overlaid(path, parse(path), profile) if profile else parse(path)
    _set(path, document, values, "--set")


def write(path: Path, values: Mapping[str, Any], asker: str) -> None:
    """Write values at dotted keys into params.yaml; comments stay. Raises ParamsError in the name of who asked."""
    commit.file(path, written(path, values, asker))


def written(path: Path, values: Mapping[str, Any], asker: str) -> str:
    """params.yaml with values at dotted keys, as text; comments stay. Raises ParamsError in the name of who asked."""
    document = parse(path)
    _set(path, document, values, asker)
    out = io.StringIO()
    _yaml().dump(document, out)
    return out.getvalue()


def where(path: Path, *keys: str | int) -> str:
    """file:line of the innermost of these keys that the file holds. Raises ParamsError."""
    return _at(path, _document(path), list(keys))


def _quoted(value: Any) -> Any:
    """Text with a colon in quotes: in a flow mapping DVC's parser takes no other."""
    return DoubleQuotedScalarString(value) if isinstance(value, str) and ":" in value else value


def has(document: CommentedMap, name: str) -> bool:
    """Whether a document has a value at a dotted key."""
    place: Any = document
    for key in name.split("."):
        if not isinstance(place, Mapping) or key not in place:
            return False
        place = place[key]
    return True


def _set(path: Path, document: CommentedMap, values: Mapping[str, Any], asker: str) -> None:
    """Put values at dotted keys that are there, and check the whole."""
    for name, value in values.items():
        if not has(document, name):
            raise ParamsError(f"{path.name} has no key {name!r}", asker, "name one that it has")
        *spine, last = name.split(".")
        place: Any = document
        for key in spine:
            place = place[key]
        if isinstance(place[last], CommentedMap) and not isinstance(value, Mapping | None):
            do = f"name one: {', '.join(map(str, place[last]))}"
            raise ParamsError(f"{name} holds keys of its own", asker, do)
        place[last] = _quoted(value)
    try:
        for section in sections().values():
            _typed(path, document, section)
    except ParamsError as error:
        raise ParamsError(error.what, asker, error.do or "give another value") from None


def parse(path: Path) -> CommentedMap:
    """params.yaml as a map that knows its lines, to change and to write. Raises ParamsError."""
    return _document(path, _load)  # a copy of what is kept would lose merge keys and forms of times


def _load(text: str) -> Any:
    document = _yaml().load(text)
    YAML(typ="safe").load(text)  # as DVC reads it, by another parser, which takes less
    return document


_kept = lru_cache(maxsize=4)(_load)  # a command reads a file a dozen times, and takes longer for it than for the rest


def _document(path: Path, load: Callable[[str], Any] = _kept) -> CommentedMap:
    """params.yaml as a map that knows its lines, for who changes nothing in it. Raises ParamsError."""
    try:
        document = load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError("it is not there", str(path), "run in the project's folder, or restore it from Git") from None
    except OSError as error:
        do = "make it a file that may be read, or restore it from Git"
        raise ParamsError(f"it cannot be read ({error.strerror})", str(path), do) from None
    except UnicodeDecodeError:
        raise ParamsError("it is not UTF-8 text", str(path), "save it as UTF-8") from None
    except DuplicateKeyError as error:
        key = str(error.problem).split('"')[1] if '"' in str(error.problem) else "a key"
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise ParamsError(f"{key!r} stands twice", f"{path}:{line}", "keep one of them") from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise ParamsError(f"not YAML: {error.problem}", f"{path}:{line}", "mend the syntax there") from None
    except YAMLError as error:  # a character that YAML does not have
        raise ParamsError(f"not YAML: {error}", str(path), "take that character out") from None
    if not isinstance(document, CommentedMap):
        raise ParamsError("it holds no keys", str(path), "restore it from Git")
    return document


def _yaml() -> YAML:
    yaml = YAML()
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.preserve_quotes = True
    yaml.representer.add_representer(type(None), lambda made, _: made.represent_scalar(NULL, "null"))
    return yaml


def _maps(document: CommentedMap) -> Iterator[list[str]]:
    """The keys to everything that must be a section, or hold some."""
    above = {name.partition(".")[0] for name in sections() if "." in name}
    for key, value in document.items():
        if key not in OTHER:
            yield [key]
        if key in above and isinstance(value, Mapping):
            yield from ([key, inner] for inner in value)


def _typed(
    path: Path, document: CommentedMap, section: type[S], profile: str | None = None, lines: CommentedMap | None = None
) -> S:
    """A section of a document; `profile` is the one whose values stand in it, and `lines` the file that it is of."""
    spine = section.name.split(".")
    found: Any = document
    for key in spine:
        if not isinstance(found, Mapping) or key not in found:
            raise ParamsError(f"section {section.name!r} is missing", str(path), "restore it from Git")
        found = found[key]
    above = ["profiles", profile] if profile else []
    return _valid(path, found, section, document if lines is None else lines, [*above, *spine])


def _valid(path: Path, found: Any, model: type[M], lines: Any, spine: list[Any]) -> M:
    """A value as its type; `lines` is the document that the keys `spine` lead to it in, to say where it is wrong."""
    try:
        return model.model_validate(plain(found))
    except ValidationError as error:
        found_wrong = error.errors()  # a misspelt key is also a missing one: the misspelling says more
        first = next((one for one in found_wrong if one["type"] == "extra_forbidden"), found_wrong[0])
        keys = _keys(found, first["loc"])
        what, do = _reason(first, model)
        name = ".".join(map(str, [*spine, *keys]))
        raise ParamsError(f"{name}: {what}" if name else what, _at(path, lines, [*spine, *keys]), do) from None


def _reason(first: Mapping[str, Any], model: type[Strict]) -> tuple[str, str]:
    """What is wrong with a value, and what to do where the first does not say it."""
    if first["type"] == "extra_forbidden":
        fields = [field.alias or name for name, field in model.model_fields.items()]
        beside = f"{getattr(model, 'name', 'it')} has {', '.join(fields)}"
        return "no such key", beside if len(first["loc"]) == 1 else "mend its name, or take it out"
    if first["type"] == "missing":
        return "is missing", "write it there, or restore it from Git"
    if first["type"] == "value_error":
        return str(first["ctx"]["error"]), ""
    if first["type"] in ("model_type", "model_attributes_type", "dict_type"):  # whose sentences name a Python type
        return "input should be an object: keys with values, indented below it", ""
    said = f"{first['msg'][0].lower()}{first['msg'][1:]}"
    return (said if isinstance(first["input"], Mapping | list) else f"{said}, not {first['input']!r}"), ""


def _keys(document: Any, location: tuple[int | str, ...]) -> list[int | str]:
    """The keys to a value; pydantic's location also holds the `kind` of a source, after its number in the list."""
    found: list[int | str] = []
    for key in location:
        if found and isinstance(found[-1], int) and isinstance(document, Mapping) and document.get("kind") == key:
            continue
        found.append(key)
        with suppress(KeyError, IndexError, TypeError):
            document = document[key]
    return found


def _at(path: Path, document: Any, keys: list[Any]) -> str:
    """file:line of the innermost of these keys that the document holds."""
    line = 0
    for key in keys:
        if isinstance(document, CommentedMap) and key in document:
            line = document.lc.key(key)[0]
        elif isinstance(document, list) and isinstance(key, int) and key < len(document):
            line = document.lc.item(key)[0]  # type: ignore[attr-defined]
        else:
            continue
        document = document[key]
    return f"{path}:{line + 1}"


def _profiles(path: Path, document: CommentedMap) -> Mapping[str, Any]:
    """The overlays by name. Raises ParamsError where they are none."""
    found = document.get("profiles") or {}
    wrong = [] if not isinstance(found, Mapping) else [n for n, o in found.items() if not isinstance(o, Mapping | None)]
    if not isinstance(found, Mapping) or wrong:
        at = ["profiles", *wrong[:1]]
        what = f"{'.'.join(map(str, at))} holds no sections"
        raise ParamsError(what, _at(path, document, at), "indent them below it")
    return found


def _overlaid(path: Path, document: CommentedMap, profile: str) -> CommentedMap:
    """The document with a profile's values in its sections. Raises ParamsError for one that it does not have."""
    profiles = _profiles(path, document)
    if profile not in profiles:
        raise ParamsError(f"no profile {profile!r}", str(path), f"there are {', '.join(profiles)}")
    overlaid = _overlay(document, profiles[profile], path, ["profiles", profile])
    overlaid["profile"] = profile
    return overlaid


def _overlay(document: CommentedMap, overlay: Any, path: Path, spine: list[Any]) -> CommentedMap:
    """A copy of `document` with the values of `overlay`; a key that the document lacks is refused."""
    merged: CommentedMap = document.copy()
    for key, value in (overlay or {}).items():
        if key not in document:
            raise ParamsError(
                f"{'.'.join(map(str, [*spine, key]))}: no such key", _at(path, _document(path), [*spine, key])
            )
        # a map with a `kind` is one of several shapes: it replaces the other as a whole
        nested = isinstance(value, CommentedMap) and isinstance(document[key], CommentedMap) and "kind" not in value
        if nested:
            merged[key] = _overlay(document[key], value, path, [*spine, key])
        elif plain(value) != plain(document[key]):
            merged[key] = deepcopy(value)  # one that both shared would be written as an anchor and its alias
    return merged


def plain(value: Any) -> Any:
    """A part of the file as plain data, without what ruamel.yaml knows of its form."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return float(value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    return str(value) if isinstance(value, str) else value
