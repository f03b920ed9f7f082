"""Links, images and markup in an answer: what a reader's page would follow or fetch, unless the sources hold it.

A document can order a model to put what it read into an address; a page that shows the answer then carries it out,
an image without a click. So of what Markdown and HTML take for a link only those stay whose whole target stands in the
sources; an image stays one only where the asker brought it, since of a document's own images a row can be chosen that
spells a secret. No tag with attributes stays, and no control character that a terminal would obey. What is no
well-formed link but could be read as one (a target on the next line, brackets in brackets, a tag without an end) is
broken by a blank.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from html import unescape

LINK = "<LINK>"
_SCHEMES = r"(?:https?|ftps?|wss?|file|data|javascript|vbscript|mailto)"
# that pages make links of without a scheme
_HOSTS = r"com|net|org|info|biz|io|dev|app|xyz|ru|cn|top|site|online|example"
_URL = (
    rf"(?<![a-z0-9]){_SCHEMES}\s?:[^\s<>\"')\]]+|www\.[^\s<>\"')\]]+"
    r"|(?<![\w:/.])//(?:[a-z0-9-]{1,63}\.)+[a-z]{2,24}(?![\w.])[^\s<>\"')\]]*"
    rf"|(?<![\w.@/-])(?:[a-z0-9-]{{1,63}}\.)+(?:{_HOSTS})(?:/|\?|\#)[^\s<>\"')\]]*"
)
_TAGS = (
    "a|area|audio|base|body|button|embed|form|frame|iframe|image|img|input|link|math|meta|object|picture|script|source"
    "|style|svg|track|video"
)
_TAG = rf"(?:(?:{_TAGS})\b|[a-z][\w:-]*\s[^<>]{{0,600}}=)"
_LABEL = r"[^\]\n]{0,300}"
_LINKS = re.compile(
    rf"!?\[(?P<text>{_LABEL})\]\((?P<target>[^)\n]{{0,600}})\)"  # Markdown's link or image
    rf"|\[(?P<label>[^\]]{{1,300}})\]:[ \t]*\n?[ \t]*(?P<defined>\S*[/\\&:]\S*)"  # where such a link is defined
    rf"|<(?P<tag>/?{_TAG}[^>]{{0,600}})>"
    rf"|(?P<bare>{_URL})"
    r"|(?P<control>[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f])"  # that a terminal would obey
    rf"|(?P<odd>\]\(|\]:(?=[ \t]*\n?[ \t]*[<&\\/])|<(?=/?{_TAG}))",
    re.IGNORECASE,
)
_URLS = re.compile(_URL, re.IGNORECASE)
_CALL = re.compile(r"[\w\s,=*+.-]*")  # array[0](x): a target that leads nowhere
# what the end of a text may be the beginning of
OPEN = (
    rf"(?:!?\[{_LABEL}(?:\](?:\([^)\n]{{0,600}})?)?"
    r"|\[[^\]]{0,300}\]:[ \t]*\n?[ \t]*\S*"
    r"|\[[^\]\n]{0,300}\n[^\]]{0,300}"
    r"|\]:[ \t]*\n?[ \t]*"
    r"|<[/a-z][^>]{0,1300}"
    rf"|{_SCHEMES}\s?)"
)


def linked(text: str) -> Iterator[tuple[int, int]]:
    """Where a text holds a link, or what could be read as one, whatever becomes of it."""
    return (hit.span() for hit in _LINKS.finditer(text))


def foreign(text: str, links: Collection[str], images: Collection[str]) -> Iterator[tuple[int, int, str]]:
    """What may not stay of a text: from, to, and what stands there instead; in order, without overlaps."""
    for hit in _LINKS.finditer(text):
        start, end = hit.span()
        if hit["text"] is not None:
            instead = _markdown(hit, links, images)
        elif hit["defined"] is not None:
            instead = None if _known(hit["defined"], links) else f"[{_bare(hit['label'], links)}] {LINK}"
        elif hit["bare"] is not None:
            end = start + len(trimmed(hit["bare"]))
            instead = None if _known(hit["bare"], links) else LINK
        else:
            instead = f"{hit['odd'][0]} {hit['odd'][1:]}" if hit["odd"] else ""
        if instead is not None:
            yield start, end, instead


def urls(texts: Iterable[str]) -> frozenset[str]:
    """The links that stand in these texts."""
    return frozenset(trimmed(one) for text in texts for one in _URLS.findall(text))


def trimmed(url: str) -> str:
    """A link without the punctuation of the sentence that it ends."""
    return url.rstrip(".,;:!?")


def _markdown(hit: re.Match[str], links: Collection[str], images: Collection[str]) -> str | None:
    """What stands instead of a link or an image of Markdown; None where it stays."""
    text, image = hit["text"], hit[0].startswith("!")
    plain = _bare(text, links)
    if plain != text:
        return plain
    to, _, title = hit["target"].strip().partition(" ")
    if _known(to, links) and not _URLS.search(title):
        return f"[{text}]({hit['target']})" if image and not _known(to, images) else None
    return None if not image and _CALL.fullmatch(hit["target"]) else text


def _bare(text: str, links: Collection[str]) -> str:
    """A link's text; LINK for one that holds what may not stay itself."""
    return LINK if next(foreign(text, links, ()), None) else text


def _known(url: str, links: Collection[str]) -> bool:
    """Whether this whole address is one of the sources'."""
    bare = unescape(url).strip("<>")
    return bare in links or trimmed(bare) in links
