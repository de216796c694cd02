"""Which code forge a repository was cloned from, and the URLs of source lines there.

Only the host and the path of the remote are used: a user name, a password or a token in its URL goes nowhere.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from rotary_batch.repo.plumbing import run_git

_SCP = re.compile(r"(?:[^@/\s]+@)?([\w.-]+):(?!//)(.+)")  # git@host:path
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")


class Remote(NamedTuple):
    """Where a repository was cloned from."""

    host: str
    path: str  # without slashes at its ends and without `.git`


def link_template(root: Path, commit: str) -> str | None:
    """The template of URLs of source lines at a commit, with {path}, {start} and {end}.

    None when the remote `origin` is on no forge that is known, or when no branch of a remote has the commit.
    """
    url = run_git(root, "config", "--local", "--get", "remote.origin.url", check=False).decode("utf-8", "replace")
    remote = read_remote(url.strip())
    if remote is None or not _is_published(root, commit):
        return None
    prefix = run_git(root, "rev-parse", "--show-prefix", check=False).decode("utf-8", "surrogateescape").strip("\n")
    return template_of(remote, commit, prefix)


def _is_published(root: Path, commit: str) -> bool:
    query = ("for-each-ref", "--count=1", "--contains", commit, "--format=%(refname)", "refs/remotes")
    return bool(run_git(root, *query, check=False).strip())


def read_remote(url: str) -> Remote | None:
    """The host and path of the URL of a remote; None for a folder and anything that is no URL."""
    if "://" in url:
        try:
            parts = urlsplit(url)
            host, path, port = parts.hostname or "", parts.path, parts.port
        except ValueError:
            return None
        if parts.scheme not in {"https", "http", "ssh", "git"} or not _HOST.fullmatch(host):
            return None
        web_port = f":{port}" if port and parts.scheme in {"https", "http"} and port not in {80, 443} else ""
        return _remote(host + web_port, path)
    match = _SCP.fullmatch(url)
    return _remote(match[1].lower(), match[2]) if match and _HOST.fullmatch(match[1]) else None


def _remote(host: str, path: str) -> Remote | None:
    path = unquote(path.strip("/").removesuffix(".git").strip("/"))
    return Remote(host, path) if path and "\n" not in path else None


def template_of(remote: Remote, commit: str, prefix: str = "") -> str | None:
    """The template for a forge; `prefix` is the path of the folder that is documented, with a slash at its end."""
    host, path = remote
    forge = _forge(host)
    if forge == "azure":
        return _azure(remote, commit, prefix)
    pattern = {
        "github": "blob/{commit}/{prefix}{{path}}#L{{start}}-L{{end}}",
        "gitlab": "-/blob/{commit}/{prefix}{{path}}#L{{start}}-{{end}}",
        "bitbucket": "src/{commit}/{prefix}{{path}}#lines-{{start}}:{{end}}",
        "gitea": "src/commit/{commit}/{prefix}{{path}}#L{{start}}-L{{end}}",
    }.get(forge)
    if pattern is None:
        return None
    return f"https://{host}/{_quoted(path)}/" + pattern.format(commit=commit, prefix=_quoted(prefix))


def _forge(host: str) -> str:
    labels = set(re.split(r"[.:]", host))
    if host in {"dev.azure.com", "ssh.dev.azure.com", "vs-ssh.visualstudio.com"} or host.endswith(".visualstudio.com"):
        return "azure"
    if "codeberg" in labels or "forgejo" in labels or "gitea" in labels:
        return "gitea"
    return next((name for name in ("github", "gitlab", "bitbucket") if name in labels), "")


def _azure(remote: Remote, commit: str, prefix: str) -> str | None:
    parts = [part for part in remote.path.split("/") if part != "_git"]
    if parts[0] == "v3":  # of the SSH URL
        parts = parts[1:]
    elif remote.host.endswith(".visualstudio.com"):
        parts = [remote.host.partition(".")[0], *(part for part in parts if part != "DefaultCollection")]
    if len(parts) == 2:  # a repository that is named as its project
        parts.append(parts[1])
    if len(parts) != 3:
        return None
    organisation, project, name = map(_quoted, parts)
    lines = "line={start}&lineEnd={end}&lineStartColumn=1&lineEndColumn=999"
    place = f"path=/{_quoted(prefix)}{{path}}&version=GC{commit}"
    return f"https://dev.azure.com/{organisation}/{project}/_git/{name}?{place}&{lines}"


def _quoted(path: str) -> str:
    return quote(path, safe="/-_.~", errors="replace")
