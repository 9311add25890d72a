"""Reading repositories and registries that are friendly, and some that are not."""

import contextlib
import gzip
import io
import ipaddress
import json
import socket
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skills.oci.artifact import digest_of
from skills.tests.upstream import Repository, Upstream, entry, registry_of, upstream_in
from skills.upstream import git, mcp_registry
from skills.upstream.found import Found, SourceError, is_semver
from skills.upstream.git import front_matter, packed

LOCAL = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
WEATHER = "---\nname: weather\ndescription: Tells it\nversion: 1.4.0\n---\n# Weather\n"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Upstream, Repository]]:
    with upstream_in(tmp_path) as both:
        yield both


def read(url: str, ref: str = "") -> list[Found]:
    with git.cloned(url, ref, LOCAL) as clone:
        return list(git.read_skills(clone))


def refused(url: str, ref: str = "", allowed: Any = LOCAL) -> str:
    with pytest.raises(SourceError) as caught, git.cloned(url, ref, allowed) as clone:
        list(git.read_skills(clone))
    return str(caught.value)


# --- git -------------------------------------------------------------------------------------------------------------


def test_every_folder_with_a_skill_file_is_a_skill(served: tuple[Upstream, Repository]) -> None:
    server, repository = served
    commit = repository.commit(
        {
            "README.md": "no skill",
            "weather/SKILL.md": WEATHER,
            "tools/SKILL.md": "---\nname: tools\nmetadata:\n  version: 2.0.0-rc.1\n---\nx",
            "tools/run.py": "print(1)\n",
            "tools/inner/SKILL.md": "# no fields at all\n",
            "tools/inner/more.txt": b"\x00\xff",
            "odd/skill.md": "another case",
        }
    )
    with git.cloned(f"{server.url}/git/skills.git", "", LOCAL) as clone:
        assert clone.commit == commit
        assert {each.name for each in clone.folder.iterdir()} >= {"HEAD", "objects"}
        assert not (clone.folder / "hooks").exists()
        found = {each.upstream_id: each for each in git.read_skills(clone)}
    assert not clone.folder.exists()
    assert sorted(found) == ["tools", "tools/inner", "weather"]
    weather = found["weather"]
    assert (weather.name, weather.version, weather.description) == ("weather", "1.4.0", "Tells it")
    assert (weather.content, weather.content_type) == (WEATHER.encode(), "text/markdown")
    assert weather.digest == digest_of(WEATHER.encode())
    tools = found["tools"]
    assert (tools.name, tools.version, tools.content_type, tools.problem) == (
        "tools", "2.0.0-rc.1", "application/gzip", "",
    )  # fmt: skip
    assert tools.content is not None
    with tarfile.open(fileobj=io.BytesIO(tools.content)) as archive:
        assert archive.getnames() == ["SKILL.md", "run.py"]
    inner = found["tools/inner"]
    assert (inner.name, is_semver(inner.version)) == ("inner", True)
    assert inner.version == f"0.0.0-sha{inner.digest[7:19]}"


def test_a_branch_or_tag_can_be_named(served: tuple[Upstream, Repository]) -> None:
    server, repository = served
    url = f"{server.url}/git/skills.git"
    repository.commit({"SKILL.md": WEATHER})
    repository.commit({"SKILL.md": WEATHER.replace("1.4.0", "1.5.0-beta")}, branch="next/one")
    assert [each.version for each in read(url)] == ["1.4.0"]
    (found,) = read(url, "next/one")
    assert (found.version, found.upstream_id) == ("1.5.0-beta", ".")
    assert "no such branch" in refused(url, "absent")
    for odd in ("--upload-pack=touch x", "-x", "a..b", "a b", "a\nb", "x.lock", "/a"):
        assert "name that git does not take" in refused(url, odd), odd


def test_links_submodules_and_odd_names_are_no_files(served: tuple[Upstream, Repository]) -> None:
    server, repository = served
    repository.commit({"s/SKILL.md": WEATHER, "s/real.txt": "real"})
    (repository.work / "s/link").symlink_to("/etc/passwd")
    (repository.work / "linked").symlink_to("s")
    repository.git("add", "--all")
    commit = repository.git("rev-parse", "HEAD")
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{commit},s/module")
    repository.git("commit", "--quiet", "--message=links")
    repository.push()
    (found,) = read(f"{server.url}/git/skills.git")
    assert found.content is not None
    with tarfile.open(fileobj=io.BytesIO(found.content)) as archive:
        assert archive.getnames() == ["SKILL.md", "real.txt"]
    # Only the repository itself was asked for anything.
    assert all(" /git/skills.git/" in each for each in server.asked)


def test_what_cannot_be_taken_is_listed_with_its_reason(
    served: tuple[Upstream, Repository], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, repository = served
    monkeypatch.setattr(git, "MAX_CONTENT_BYTES", 2000)
    monkeypatch.setattr(git, "MAX_FILES", 3)
    bomb = "---\n" + "a: &a [x,x]\n" + "".join(f"k{n}: &k{n} [*a,*a]\n" for n in range(5)) + "---\n"
    repository.commit(
        {
            "big/SKILL.md": "x" * 2001, "latin/SKILL.md": b"\xe4\xf6", "nul/SKILL.md": b"a\x00b", "empty/SKILL.md": "",
            "bomb/SKILL.md": bomb, "many/SKILL.md": "x", **{f"many/{n}": "" for n in range(3)},
            "list/SKILL.md": "---\n- a\n---\n", "open/SKILL.md": "---\nname: x\n",
        }
    )  # fmt: skip
    found = {each.upstream_id: each for each in read(f"{server.url}/git/skills.git")}
    problems = {key: each.problem for key, each in found.items() if each.problem}
    assert sorted(problems) == ["big", "empty", "latin", "many", "nul"]
    assert "larger than" in problems["big"]
    assert "UTF-8" in problems["latin"]
    assert "3 files" in problems["many"]
    assert all(each.content is None for each in found.values() if each.problem)
    # The scan says what is wrong with these.
    assert {found[key].name for key in ("bomb", "list", "open")} == {"bomb", "list", "open"}


def test_a_repository_that_is_too_large_too_slow_or_endless_is_given_up(
    served: tuple[Upstream, Repository], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, repository = served
    url = f"{server.url}/git/skills.git"
    # Random bytes do not shrink.
    import random

    repository.commit({"SKILL.md": WEATHER, "large.bin": random.Random(1).randbytes(300_000)})  # noqa: S311
    with monkeypatch.context() as patched:
        patched.setattr(git, "MAX_PACK_BYTES", 100 * 1024)
        assert "larger than" in refused(url)
    with monkeypatch.context() as patched:
        patched.setattr(git, "MAX_ENTRIES", 1)
        assert "more than 1 files" in refused(url)
    with monkeypatch.context() as patched:
        patched.setattr(git, "CLONE_SECONDS", 0.3)
        given_up = threading.Event()

        def wait_for_that(path: str) -> None:
            given_up.wait(60)

        server.twist = wait_for_that
        assert "longer than" in refused(url)
        given_up.set()


def test_git_is_fenced_in(served: tuple[Upstream, Repository], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine has set up for git is none of a source's business."""
    server, repository = served
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        f'[credential]\n\thelper = "!touch {tmp_path}/asked; echo password=x"\n'
        f'[url "{server.url}/elsewhere/"]\n\tinsteadOf = {server.url}/git/\n[core]\n\tsshCommand = false\n'
    )
    (home / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9/")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "http.extraHeader")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "X-Secret: 1")
    repository.commit({"SKILL.md": WEATHER})
    assert len(read(f"{server.url}/git/skills.git")) == 1
    assert not any("X-Secret" in headers or "Authorization" in headers for headers in server.headers)
    server.twist = lambda path: (401, {"WWW-Authenticate": "Basic realm=x"}, b"")
    assert "credentials" in refused(f"{server.url}/git/skills.git")
    assert not (tmp_path / "asked").exists()


def test_only_http_and_only_where_it_may_go(served: tuple[Upstream, Repository]) -> None:
    server, repository = served
    repository.commit({"SKILL.md": WEATHER})
    url = f"{server.url}/git/skills.git"
    assert "loopback" in refused(url, allowed=())
    assert "loopback" in refused(url.replace("127.0.0.1", "localhost"), allowed=())
    assert "link-local" in refused("http://169.254.169.254/x.git", allowed=())
    assert server.asked == []
    for odd in (f"file://{repository.bare}", str(repository.bare), "ext::touch x", "ssh://127.0.0.1/x", "git://127.0.0.1/x",
                "http://user:pass@127.0.0.1/x"):  # fmt: skip
        assert "https://" in refused(odd), odd
    assert "resolved" in refused("http://no-such-host.invalid/x.git")
    assert len(read(url.replace("127.0.0.1", "localhost"))) == 1


def test_git_connects_to_the_address_that_was_judged(
    served: tuple[Upstream, Repository], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that resolves to something else a moment later gains nothing: git does not resolve it at all."""
    server, repository = served
    repository.commit({"SKILL.md": WEATHER})
    real = socket.getaddrinfo

    def known(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host == "only-here.invalid":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
        return real(host, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", known)
    assert len(read(f"http://only-here.invalid:{server.port}/git/skills.git")) == 1


def test_a_redirect_is_not_followed(served: tuple[Upstream, Repository]) -> None:
    server, repository = served
    repository.commit({"SKILL.md": WEATHER})
    server.twist = lambda path: (
        (302, {"Location": path.replace("/git/moved.git", "/git/skills.git")}, b"") if "/moved.git" in path else None
    )
    assert "redirects" in refused(f"{server.url}/git/moved.git")
    assert not any("/skills.git" in each for each in server.asked)


def test_what_is_no_repository_is_said_in_a_sentence(served: tuple[Upstream, Repository]) -> None:
    server, _ = served
    assert "no repository" in refused(f"{server.url}/git/absent.git")
    assert "no repository" in refused(f"{server.url}/elsewhere")
    assert "empty" in refused(f"{server.url}/git/skills.git")
    server.twist = lambda path: (200, {"Content-Type": "text/html"}, b"<html>")
    assert refused(f"{server.url}/git/skills.git").endswith(".")
    server.close()
    assert "connected" in refused(f"{server.url}/git/skills.git")


def test_the_same_files_are_packed_into_the_same_bytes() -> None:
    files = {"b/x.txt": b"x", "SKILL.md": b"y"}
    made = packed(files)
    assert made == packed(dict(reversed(files.items())))
    assert gzip.decompress(made)
    with tarfile.open(fileobj=io.BytesIO(made)) as archive:
        assert [(each.name, each.mtime, each.uid, each.mode) for each in archive] == [
            ("SKILL.md", 0, 0, 0o644), ("b/x.txt", 0, 0, 0o644),
        ]  # fmt: skip


def test_front_matter_is_read_without_unfolding_it() -> None:
    assert front_matter(b"---\r\nname: x\r\n---\r\nbody")[0] == {"name": "x"}
    assert front_matter("\ufeff---\nname: x\n---".encode())[0] == {"name": "x"}
    assert front_matter(b"---\nwhen: 2026-01-01\n---\n")[0] == {"when": "2026-01-01"}
    nested = b"---\n" + b"[" * 15_000 + b"\n---\n"
    assert front_matter(nested) == ({}, "")
    assert front_matter(b"---\na: !!python/object/apply:os.system [id]\n---\n") == ({}, "")


# --- MCP registry ----------------------------------------------------------------------------------------------------


def servers(server: Upstream, path: str = "") -> dict[str, Found]:
    return {each.upstream_id: each for each in mcp_registry.read_servers(f"{server.url}{path}", LOCAL)}


def registry_refusal(server: Upstream, allowed: Any = LOCAL) -> str:
    with pytest.raises(SourceError) as caught:
        list(mcp_registry.read_servers(server.url, allowed))
    return str(caught.value)


def test_every_page_of_a_registry_is_read(served: tuple[Upstream, Repository]) -> None:
    server, _ = served
    old = entry("io.example/old")
    old["_meta"]["io.modelcontextprotocol.registry/official"]["isLatest"] = False
    deleted = entry("io.example/deleted")
    deleted["_meta"]["io.modelcontextprotocol.registry/official"]["status"] = "deleted"
    packages = [
        {"registryType": "npm", "identifier": "@example/local", "version": "1.0.0", "transport": {"type": "stdio"}}
    ]
    server.answers = registry_of(
        [
            entry("io.example/weather", "1.2.3", title="Weather"),
            entry("io.example/local", remotes=[], packages=packages),
            old,
            entry("io.example/blank", remotes=[{"type": "sse", "url": "https://{tenant}.example.com/sse"}]),
            deleted,
            entry("io.example/two", remotes=[{"type": "stdio"}, {"type": "sse", "url": "https://two.example.com/sse"}]),
            entry("io.example/odd", remotes="none", version=7, description=None),
        ]
    )
    found = servers(server)
    assert sorted(found) == [f"io.example/{name}" for name in ("blank", "local", "odd", "two", "weather")]
    weather = found["io.example/weather"]
    assert (weather.kind, weather.name, weather.version, weather.problem) == (
        "mcp-server", "io.example/weather", "1.2.3", "",
    )  # fmt: skip
    assert weather.details == {
        "endpoint": "https://weather.example.com/mcp", "transport": "streamable-http", "title": "Weather",
        "repository": "https://github.com/io.example/weather",
    }  # fmt: skip
    assert "only packages" in found["io.example/local"].problem
    assert "filled in" in found["io.example/blank"].problem
    assert found["io.example/two"].details["transport"] == "sse"
    assert found["io.example/odd"].version == "unknown"
    assert len(server.asked) == 4
    assert "version=latest" in server.asked[0]
    assert servers(server, "/v0/servers/").keys() == found.keys()


def test_what_is_no_registry_is_said_in_a_sentence(
    served: tuple[Upstream, Repository], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _ = served

    def answering(status: int, body: bytes, **headers: str) -> str:
        server.answers = lambda path, query: (status, headers, body)
        return registry_refusal(server)

    assert "404" in answering(404, b"")
    assert "credentials" in answering(401, b"")
    assert "redirects" in answering(302, b"", Location="http://169.254.169.254/")
    assert "not with JSON" in answering(200, b"<html>")
    assert "not with JSON" in answering(200, b'{"servers": [NaN]}')
    assert "no list" in answering(200, b"[]")
    assert "no list" in answering(200, b'{"servers": {}}')
    circle = json.dumps({"servers": [], "metadata": {"nextCursor": "same"}}).encode()
    assert "circle" in answering(200, circle)
    assert "compresses" in answering(200, b"\x1f\x8b", **{"Content-Encoding": "gzip"})
    monkeypatch.setattr(mcp_registry, "PAGE_BYTES", 100)
    assert "longer than" in answering(200, b'{"servers": [' + b" " * 200 + b"]}")
    assert "loopback" in registry_refusal(server, allowed=())
    with contextlib.suppress(OSError):
        server.close()
    assert "connected" in registry_refusal(server)


@pytest.mark.parametrize("odd", [None, 5, [], {}, {"server": {}}, {"server": {"name": 5}}, {"server": {"name": " "}}])
def test_entries_that_are_no_servers_are_passed_over(served: tuple[Upstream, Repository], odd: Any) -> None:
    server, _ = served
    body = json.dumps({"servers": [odd, entry("io.example/x")], "metadata": None}).encode()
    server.answers = lambda path, query: (200, {}, body)
    assert list(servers(server)) == ["io.example/x"]
