"""Cut a document into sections: Markdown and HTML at headings, text at paragraphs, Python at docstrings.

Every function returns parts in the document's order: (title path, body). The title path is qualified ('Guide >
Install'), so that siblings are those that share all but its last step.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

LONGEST = 4_000  # characters of one section; longer bodies are cut at paragraphs
SHORTEST = 80  # characters under which a docstring says too little to be asked about
_HEADINGS = ["h1", "h2", "h3", "h4", "h5", "h6"]
_BLOCKS = ["p", "li", "pre", "td", "blockquote", "dd", "dt"]
_UNDERLINE = re.compile(r"^[-=~^]{3,}\s*$")


@dataclass(frozen=True)
class Part:
    """A title path from the document's own title down, and the text under it."""

    title: tuple[str, ...]
    body: str


def markdown(text: str, name: str) -> list[Part]:
    """Sections of Markdown; front matter and comments are left out."""
    from markdown_it import MarkdownIt

    lines = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.S).split("\n")
    tokens = MarkdownIt("commonmark").parse("\n".join(lines))
    cuts = [
        (token.map[0], token.map[1], int(token.tag[1]), tokens[place + 1].content)
        for place, token in enumerate(tokens)
        if token.type == "heading_open" and token.map
    ]
    return _by_headings(lines, cuts, name)


def html(text: str, name: str) -> list[Part]:
    """Sections of HTML; scripts, styles and navigation are left out."""
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(text)
    tree.strip_tags(["script", "style", "nav", "header", "footer", "noscript", "svg"])
    lines: list[str] = []
    cuts: list[tuple[int, int, int, str]] = []
    for node in tree.css(", ".join([*_HEADINGS, *_BLOCKS])):
        words = " ".join(node.text(deep=True).split())
        if words and node.tag in _HEADINGS:
            cuts.append((len(lines), len(lines) + 1, _HEADINGS.index(node.tag) + 1, words))
            lines.append(words)
        elif words and len(node.css(", ".join(_BLOCKS))) == 1:  # itself alone: its text is not another's too
            lines += [words, ""]
    return _by_headings(lines, cuts, name)


def text(content: str, name: str) -> list[Part]:
    """Sections of plain text: runs of paragraphs up to the longest length."""
    return list(_sized(Part((name,), content.strip())))


def python(content: str, path: str) -> list[Part]:
    """Docstrings of a module, its public classes and functions, cut at their own headings. Raises SyntaxError."""
    module = ".".join(PurePosixPath(path).with_suffix("").parts).removesuffix(".__init__")
    parts: list[Part] = []
    for title, docstring in _docstrings(ast.parse(content), (module,)):
        parts += _docstring_parts(title, docstring)
    return parts


def _docstrings(node: ast.AST, title: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    if isinstance(node, documented) and (docstring := ast.get_docstring(node, clean=False)):
        cleaned = inspect.cleandoc(docstring)
        if len(cleaned) >= SHORTEST:
            yield title, cleaned
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            yield from _docstrings(child, (*title, child.name))


def _docstring_parts(title: tuple[str, ...], docstring: str) -> Iterator[Part]:
    """One docstring as sections: its summary under its own name, then 'Parameters', 'Notes' and so on."""
    name = ".".join(title)
    lines = docstring.split("\n")
    cuts = [
        (place, place + 2, 1, lines[place].strip())
        for place in range(len(lines) - 1)
        if _UNDERLINE.match(lines[place + 1]) and 0 < len(lines[place].strip()) < 40 and lines[place][0] != " "
    ]
    for part in _by_headings(lines, cuts, name):
        if len(part.body) >= SHORTEST // 2:
            yield part


def _by_headings(lines: list[str], cuts: list[tuple[int, int, int, str]], name: str) -> list[Part]:
    """Parts between headings, given as (first line, line after, level, words)."""
    parts: list[Part] = []
    spine: list[tuple[int, str]] = []
    starts = [(0, 0, 0, ""), *cuts]
    for place, (_, after, level, words) in enumerate(starts):
        end = starts[place + 1][0] if place + 1 < len(starts) else len(lines)
        if words:
            spine = [step for step in spine if step[0] < level] + [(level, " ".join(words.split()))]
        body = "\n".join(lines[after:end]).strip()
        if body:
            parts += _sized(Part((name, *(step[1] for step in spine)), body))
    return parts


def _sized(part: Part) -> Iterator[Part]:
    """The part, cut at paragraphs when it is longer than the longest."""
    piece = ""
    for paragraph in re.split(r"\n\s*\n", part.body):
        if piece and len(piece) + len(paragraph) > LONGEST:
            yield Part(part.title, piece)
            piece = ""
        piece = f"{piece}\n\n{paragraph}" if piece else paragraph
        while len(piece) > 2 * LONGEST:  # one paragraph of thousands of characters: cut where it is
            yield Part(part.title, piece[:LONGEST])
            piece = piece[LONGEST:]
    if piece.strip():
        yield Part(part.title, piece)
