"""A system, a question and the sections that were found for it become the messages that a model reads.

A system is a folder complete in itself (`system.json`, base/, adapter/, prompt.yaml, examples.json, index/). The same
code makes the messages that are judged at night and those that are served by day, so that what was measured is what
answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from nightshift import commit
from nightshift.errors import ParamsError, ReleaseInvalid
from nightshift.inert import Inert
from nightshift.retrieve import Hit, Index

Message = dict[str, str]
# text of a prompt → places that it must hold, and may hold
_PLACES: list[tuple[str, set[str], set[str]]] = [
    ("system", set(), set()),
    ("closed", {"question"}, {"question"}),
    ("open", {"sections", "question"}, {"sections", "question"}),
    ("section", {"body"}, {"title", "body"}),
]


class Template(BaseModel):
    """A prompt as include/prompts holds it: `{question}`, `{sections}`, `{title}` and `{body}` are filled in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    system: str  # what the model is told before anything else; "" for nothing
    closed: str  # the user's turn without sections
    open: str  # the user's turn with sections
    section: str  # one section inside it

    @model_validator(mode="after")
    def _filled(self) -> Template:
        """Each text holds the places that it needs, and no others: a misspelt one would stand in every prompt."""
        for name, needed, known in _PLACES:
            found = set(re.findall(r"\{(\w+)\}", getattr(self, name)))
            if wrong := sorted((needed - found) or (found - known)):
                raise ValueError(f"`{name}` {'lacks' if needed - found else 'has an unknown'} {{{wrong[0]}}}")
        return self

    @classmethod
    def read(cls, path: Path) -> Template:
        """Read a template. Raises ParamsError when a key is missing or unknown."""
        from pydantic import ValidationError
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError

        try:
            return cls.model_validate(YAML(typ="safe").load(path.read_text(encoding="utf-8")))
        except ValidationError as error:
            first = error.errors()[0]
            key = "".join(f"{one}: " for one in first["loc"])
            what = key + first["msg"].removeprefix("Value error, ").lower()
            raise ParamsError(what, str(path), "a prompt has system, closed, open and section") from None
        except (YAMLError, UnicodeDecodeError) as error:
            raise ParamsError(f"not YAML: {error}", str(path), "mend the syntax there") from None


@dataclass(frozen=True)
class System:
    """An opened system folder."""

    folder: Path
    settings: dict[str, Any]  # system.json: name, context, sections, section_tokens, max_new_tokens, dtype, digests
    template: Template
    examples: list[dict[str, str]]  # question and answer of each

    @classmethod
    def open(cls, folder: Path) -> System:
        """Open a system. Raises ReleaseInvalid when a part is missing."""
        try:
            settings = json.loads((folder / "system.json").read_text(encoding="utf-8"))
            examples = json.loads((folder / "examples.json").read_text(encoding="utf-8"))
            return cls(folder, settings, Template.read(folder / "prompt.yaml"), examples)
        except (OSError, ValueError) as error:
            raise ReleaseInvalid(f"it is not a system ({error})", str(folder), "make it again") from None

    @property
    def digest(self) -> str:
        """sha256 that stands for the whole folder."""
        return commit.digest(self.folder)

    @property
    def base(self) -> Path:
        """The base model, a Hugging Face folder."""
        return self.folder / "base"

    @property
    def adapter(self) -> Path | None:
        """The peft adapter, where there is one."""
        path = self.folder / "adapter"
        return path if path.is_dir() else None

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What is known of the base model: name, licence, architecture, …; {} where nothing is."""
        path = self.base / "facts.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}

    @cached_property
    def index(self) -> Index:
        """The index, opened once."""
        return Index.open(self.folder / "index")

    @cached_property
    def tokens(self) -> Any:
        """The base model's tokenizer, without torch."""
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(self.base / "tokenizer.json"))

    def length(self, text: str) -> int:
        """Tokens of one turn's text; those of the prompt itself, which every question brings, are counted once."""
        known = self._own.get(text)
        return known if known is not None else len(self.tokens.encode(text))

    @cached_property
    def _own(self) -> dict[str, int]:
        """The prompt's own turns, and their tokens."""
        return {turn["content"]: len(self.tokens.encode(turn["content"])) for turn in self.messages("", [])[:-1]}

    @cached_property
    def inert(self) -> Inert:
        """Makes a text inert for this model: nothing in it begins or ends a turn."""
        template = self.base / "chat_template.jinja"
        return Inert(self.tokens, template.read_text(encoding="utf-8") if template.is_file() else "")

    def sections(self, question: str, groups: Sequence[str] = ("public",)) -> list[Hit]:
        """The sections that the question is answered from."""
        return self.index.search(question, self.settings["sections"], groups)

    def messages(self, question: str, hits: Sequence[Hit], earlier: Sequence[Message] = ()) -> list[Message]:
        """The conversation that ends with this question; no hits is closed-book.

        Whoever wrote them, sections, question and earlier turns hold no token that sets turns apart.
        """
        sections = [(hit.title, self.cut(hit.body)) for hit in hits]
        made = messages(self.template, question, sections, self.examples, earlier)
        return [turn | {"content": self.inert(turn["content"])} for turn in made]

    def cut(self, body: str, limit: int | None = None) -> str:
        """The first tokens of a text, to where one ends: `limit` of them, or what is shown of a section's body."""
        limit = self.settings["section_tokens"] if limit is None else limit
        if limit < 1:
            return ""
        encoded = self.tokens.encode(body[: 12 * limit], add_special_tokens=False)
        end = encoded.offsets[limit - 1][1] if len(encoded.offsets) > limit else len(body)
        return body[:end]


def messages(
    template: Template,
    question: str,
    sections: Sequence[tuple[str, str]],
    examples: Sequence[dict[str, str]] = (),
    earlier: Sequence[Message] = (),
) -> list[Message]:
    """System turn, examples as turns, what was said before, and the question after its sections (title, body)."""
    made = [_turn("system", template.system)] if template.system else []
    for example in examples:
        made.append(_turn("user", _fill(template.closed, question=example["question"])))
        made.append(_turn("assistant", example["answer"]))
    made += earlier
    if sections:
        return [*made, _turn("user", _fill(template.open, sections=shown(template, sections), question=question))]
    return [*made, _turn("user", _fill(template.closed, question=question))]


def shown(template: Template, sections: Sequence[tuple[str, str]]) -> str:
    """Sections (title, body) as the model reads them: what stands in the place {sections}."""
    return "\n\n".join(_fill(template.section, title=title, body=body) for title, body in sections)


def _turn(role: str, content: str) -> Message:
    return {"role": role, "content": content.strip()}


def _fill(text: str, **values: str) -> str:
    """Put values in place of {name}, in one pass: a document that holds '{question}' is text, not a place."""
    return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], found[0]), text)
