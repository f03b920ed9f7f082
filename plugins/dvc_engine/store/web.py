"""Pages of commits, where the repository of record has some: at the service that hosts it.

What hosts a repository is seen from the address of its remote; a service under a name of its own is told by the page of
a commit. A page for what changed between two commits follows from that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from dvc_engine.git import GitError, git, without_login

# how services write the page of a commit, and of what changed between two, behind a repository's address
CHANGES = {
    "/-/commit/{commit}": "/-/compare/{before}...{commit}",  # GitLab
    "/commits/{commit}": "/branches/compare/{commit}..{before}",  # Bitbucket
    "/commit/{commit}": "/compare/{before}...{commit}",  # GitHub, and Gitea and Forgejo as it
}
# a part of a host's name → its page of a commit; 'git.example.org' tells nothing
SERVICES = {
    "github": "/commit/{commit}",
    "gitlab": "/-/commit/{commit}",
    "bitbucket": "/commits/{commit}",
    "codeberg": "/commit/{commit}",
    "gitea": "/commit/{commit}",
    "forgejo": "/commit/{commit}",
}
_URL = re.compile(r"(?:https?|ssh|git)://(?:[^@/]*@)?(?P<host>[^:/]+)(?::\d+)?/(?P<path>.+)")
_SCP = re.compile(r"(?:[^@/]*@)?(?P<host>[^:/]+\.[^:/]+):(?P<path>[^/].*)")


@dataclass(frozen=True)
class Web:
    """Pages of a repository.

    Args:
        commit: address of the page of a commit, with {commit}; "" where there is none.
        changes: of what changed between two, with {before} and {commit}; "" where that is not known.
    """

    commit: str = ""
    changes: str = ""

    def of(self, commit: str) -> str:
        """The page of a commit; "" for none."""
        return self.commit.format(commit=commit) if commit else ""

    def between(self, before: str | None, commit: str) -> str:
        """The page of what changed from `before` to a commit; "" for none, and where they are the same."""
        return self.changes.format(before=before, commit=commit) if before and commit and before != commit else ""


NOWHERE = Web()


def pages(commit: str) -> Web:
    """The pages of a repository whose commits are shown at such an address. Raises ValueError where it names none."""
    if commit.count("{commit}") != 1 or set(re.findall(r"{(.*?)}", commit)) != {"commit"}:
        raise ValueError(f"web: {commit!r} is no page of a commit, like https://example.org/mine/-/commit/{{commit}}")
    for one, changes in CHANGES.items():
        if commit.endswith(one):
            return Web(commit, commit.removesuffix(one) + changes)
    return Web(commit)


def hosted(url: str) -> Web:
    """The pages of a repository at this address of Git; none where its service is not known."""
    if (found := located(url)) is None:
        return NOWHERE
    host, path = found
    page = next((page for name, page in SERVICES.items() if name in host.split(".")), None)
    return pages(f"https://{host}/{quote(path, safe='/%~')}{page}") if page else NOWHERE


def located(url: str) -> tuple[str, str] | None:
    """Host and path of a repository at this address of Git; None for a folder of this host."""
    found = _URL.fullmatch(url) or _SCP.fullmatch(url)
    return (found["host"], found["path"].removesuffix("/").removesuffix(".git")) if found else None


def address(repository: Path, remote: str) -> str:
    """The address of a remote, by its name or as it is, without what one logs in with; "" for no remote."""
    try:
        found = git(repository, "remote", "get-url", remote) if remote else ""
    except GitError:
        found = remote
    return without_login(found)
