"""Links to the lines of a forge, from remotes as people have them; no credential is in any."""

from __future__ import annotations

import pytest

from rotary_batch.repo.forge import link_template, read_remote, template_of

COMMIT = "0" * 40
GITHUB = f"https://github.com/tea/kettle/blob/{COMMIT}/{{path}}#L{{start}}-L{{end}}"
AZURE = (
    f"https://dev.azure.com/tea/My%20Kettles/_git/kettle?path=/{{path}}&version=GC{COMMIT}"
    "&line={start}&lineEnd={end}&lineStartColumn=1&lineEndColumn=999"
)


@pytest.mark.parametrize(
    ("url", "template"),
    [
        ("https://github.com/tea/kettle.git", GITHUB),
        ("https://me:s3cret@github.com/tea/kettle", GITHUB),
        ("https://s3cret@github.com/tea/kettle.git/", GITHUB),
        ("git@github.com:tea/kettle.git", GITHUB),
        ("ssh://git@github.com:22/tea/kettle.git", GITHUB),
        (
            "https://github.tea.example/tea/kettle",
            f"https://github.tea.example/tea/kettle/blob/{COMMIT}/{{path}}#L{{start}}-L{{end}}",
        ),
        (
            "https://oauth2:s3cret@gitlab.com/hot/tea/kettle.git",
            f"https://gitlab.com/hot/tea/kettle/-/blob/{COMMIT}/{{path}}#L{{start}}-{{end}}",
        ),
        (
            "https://gitlab.tea.example:8443/tea/kettle",
            f"https://gitlab.tea.example:8443/tea/kettle/-/blob/{COMMIT}/{{path}}#L{{start}}-{{end}}",
        ),
        (
            "git@bitbucket.org:tea/kettle.git",
            f"https://bitbucket.org/tea/kettle/src/{COMMIT}/{{path}}#lines-{{start}}:{{end}}",
        ),
        (
            "https://codeberg.org/tea/kettle",
            f"https://codeberg.org/tea/kettle/src/commit/{COMMIT}/{{path}}#L{{start}}-L{{end}}",
        ),
        ("https://me@dev.azure.com/tea/My%20Kettles/_git/kettle", AZURE),
        ("git@ssh.dev.azure.com:v3/tea/My%20Kettles/kettle", AZURE),
        ("https://tea.visualstudio.com/DefaultCollection/My%20Kettles/_git/kettle", AZURE),
        ("https://unknown.example/tea/kettle", None),
    ],
)
def test_a_remote_gives_the_template_of_its_forge(url, template):
    found = template_of(read_remote(url), COMMIT)
    assert found == template
    assert "s3cret" not in str(read_remote(url))


@pytest.mark.parametrize(
    "url", ["", "/srv/git/kettle", "../kettle", "file:///srv/kettle", "https://", "https://[x/y", "C:\\x"]
)
def test_what_is_no_forge_gives_none(url):
    remote = read_remote(url)
    assert remote is None or template_of(remote, COMMIT) is None


def test_only_a_commit_that_the_remote_has_is_linked(make_repository, git):
    root = make_repository({"sub dir/a.py": "x = 1\n"})
    commit = git(root, "rev-parse", "HEAD").strip()
    git(root, "remote", "add", "origin", "https://me:s3cret@github.com/tea/kettle.git")
    assert link_template(root, commit) is None
    git(root, "update-ref", "refs/remotes/origin/main", commit)
    assert link_template(root, commit) == GITHUB.replace(COMMIT, commit)
    assert link_template(root / "sub dir", commit) == GITHUB.replace(COMMIT, commit).replace(
        "{path}", "sub%20dir/{path}"
    )
