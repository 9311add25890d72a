"""The OCI client against a real registry, and against registries that lie, hang, break off and lead elsewhere."""

import contextlib
import hashlib
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from skills.oci import registry as registry_module
from skills.oci.artifact import Artifact, artifact_of, digest_of, tag_of
from skills.oci.challenge import parse_challenge
from skills.oci.errors import (
    BlobNotFoundError,
    DigestMismatchError,
    RegistryError,
    RegistryRefusedError,
    RegistryUnavailableError,
)
from skills.oci.registry import RegistryOptions
from skills.oci.store import OciStore
from skills.tests import registry as real
from skills.tests.registry import HTPASSWD, PASSWORD, USERNAME, RealRegistry, TokenServer

needs_registry = pytest.mark.skipif(not real.is_there(), reason="docker-registry is not installed")
REPOSITORY = "opencrane/skills"


def artifact(content: bytes = b"# Weather\n", **values: str) -> Artifact:
    defaults = {"name": "weather", "version": "1.2.0", "content_type": "text/markdown"}
    return artifact_of(content=content, **defaults | values)


@contextlib.contextmanager
def store_at(url: str, **options: Any) -> Iterator[OciStore]:
    made = OciStore(RegistryOptions(url=url, **options), REPOSITORY)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "RETRY_PAUSES", (0.01, 0.01))


@pytest.fixture(scope="module")
def registry() -> Iterator[RealRegistry]:
    with real.serving() as running:
        yield running


# --- A real registry -------------------------------------------------------------------------------------------------


@needs_registry
def test_what_is_pushed_is_there_for_others_byte_for_byte(registry: RealRegistry) -> None:
    content = bytes(range(256)) * 4000
    made = artifact(content, name="Große Wolke", version="1.2.0+build.7", content_type="application/zip")
    with store_at(registry.url) as store:
        pushed = store.push(made)
        assert (pushed.digest, pushed.is_new) == (made.manifest_digest, True)
        assert store.pull(digest_of(content)) == content
        assert store.push(made).is_new is False
        # The same content under another name shares the blob.
        other = artifact(content, name="again", content_type="application/zip")
        assert store.push(other).is_new is True
    host, _, rest = pushed.reference.partition("/")
    repository, _, tag = rest.partition("@")[0].rpartition(":")
    assert (host, repository) == (registry.host, REPOSITORY)
    shown = registry.get(f"/v2/{repository}/manifests/{tag}", Accept="application/vnd.oci.image.manifest.v1+json")
    assert digest_of(shown.content) == pushed.digest == pushed.reference.partition("@")[2]
    manifest = shown.json()
    assert manifest["artifactType"] == "application/vnd.opencrane.skill.v1"
    assert manifest["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
    (layer,) = manifest["layers"]
    assert (layer["mediaType"], layer["size"], layer["digest"]) == ("application/zip", len(content), digest_of(content))
    assert registry.get(f"/v2/{repository}/blobs/{layer['digest']}").content == content
    assert registry.get(f"/v2/{repository}/blobs/{manifest['config']['digest']}").content == b"{}"


@needs_registry
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_pulls_the_same_bytes(registry: RealRegistry) -> None:
    made = artifact(b"for curl")
    with store_at(registry.url) as store:
        store.push(made)
    url = f"{registry.url}/v2/{REPOSITORY}/blobs/{made.digest}"
    assert (
        subprocess.run(["curl", "-sSf", "--noproxy", "*", url], capture_output=True, check=True).stdout == b"for curl"
    )


@needs_registry
def test_ten_mebibytes_go_in_and_out_and_nothing_beyond(registry: RealRegistry) -> None:
    content = b"\x00\xff" * (5 * 1024 * 1024)
    made = artifact(content)
    with store_at(registry.url) as store:
        store.push(made)
        assert store.pull(made.digest) == content
        with pytest.raises(RegistryRefusedError, match="more than"):
            store.pull(made.digest, max_bytes=len(content) - 1)


@needs_registry
def test_what_is_not_there_is_not_found(registry: RealRegistry) -> None:
    with store_at(registry.url) as store:
        assert store.has(artifact(b"never pushed")) is False
        with pytest.raises(BlobNotFoundError):
            store.pull(digest_of(b"never pushed"))
        for odd in ("sha256:1234", "../../x", "sha512:" + "0" * 128, ""):
            with pytest.raises(RegistryRefusedError, match="digest"):
                store.pull(odd)


@needs_registry
def test_a_registry_that_goes_away_is_unavailable_and_comes_back() -> None:
    made = artifact(b"patient")
    with real.serving() as running, store_at(running.url) as store:
        store.ping()
        running.stop()
        for action in (lambda: store.push(made), store.ping, lambda: store.pull(made.digest)):
            with pytest.raises(RegistryUnavailableError, match=r"reached|breaks off"):
                action()
        running.start()
        assert store.push(made).is_new
        running.stop()
        running.start()
        assert store.pull(made.digest) == b"patient"


@needs_registry
def test_basic_login() -> None:
    auth = {"auth": {"htpasswd": {"realm": "tests", "path": "@FOLDER@/htpasswd"}}}
    with real.serving(config=auth, files={"htpasswd": HTPASSWD.encode()}) as running:
        made = artifact()
        with store_at(running.url, username=USERNAME, password=PASSWORD) as store:
            assert store.push(made).is_new
            assert store.pull(made.digest) == made.content
        with store_at(running.url, username=USERNAME, password="wrong") as store:
            with pytest.raises(RegistryRefusedError, match=r"not allow|refuses") as caught:
                store.push(made)
            assert "wrong" not in str(caught.value)
        with store_at(running.url) as store, pytest.raises(RegistryRefusedError, match="none are set"):
            store.push(made)


@needs_registry
def test_bearer_login_and_only_at_token_servers_that_are_trusted() -> None:
    tokens = TokenServer()
    auth = {
        "auth": {
            "token": {
                "realm": f"{tokens.origin}/token", "service": "registry", "issuer": "tests",
                "rootcertbundle": "@FOLDER@/tokens.pem",
            }
        }
    }  # fmt: skip
    try:
        with real.serving(config=auth, files={"tokens.pem": tokens.certificate}) as running:
            login = {"username": USERNAME, "password": PASSWORD}
            with store_at(running.url, **login) as store, pytest.raises(RegistryRefusedError, match="AUTH_ORIGINS"):
                store.push(artifact())
            assert tokens.asked == []
            with store_at(running.url, **login, auth_origins=(tokens.origin,)) as store:
                assert store.push(artifact()).is_new
                assert store.pull(artifact().digest) == artifact().content
            assert tokens.asked == [{"service": ["registry"], "scope": [f"repository:{REPOSITORY}:pull,push"]}]
            bad = {"username": USERNAME, "password": "wrong", "auth_origins": (tokens.origin,)}
            with store_at(running.url, **bad) as store, pytest.raises(RegistryRefusedError, match="401"):
                store.push(artifact())
    finally:
        tokens.close()


@needs_registry
def test_tls_with_a_certificate_of_ones_own(tmp_path: Path) -> None:
    pem, key, _ = real.certificate()
    (tmp_path / "ca.pem").write_bytes(pem)
    tls = {"http": {"tls": {"certificate": "@FOLDER@/cert.pem", "key": "@FOLDER@/key.pem"}}}
    with real.serving(config=tls, files={"cert.pem": pem, "key.pem": key}) as running:
        with store_at(running.url) as store, pytest.raises(RegistryUnavailableError, match="not trusted"):
            store.push(artifact())
        with store_at(running.url, ca_file=str(tmp_path / "ca.pem")) as store:
            assert store.push(artifact()).is_new
        with store_at(running.url, verify_tls=False) as store:
            assert store.pull(artifact().digest) == artifact().content


# --- Registries that do not behave -----------------------------------------------------------------------------------


class BadRegistry:
    """Does what the protocol wants until `twist` says otherwise: (method, path) -> answer, or None to go on."""

    def __init__(self) -> None:
        self.twist: Callable[[Any, str, str], bool] = lambda handler, method, path: False
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def serve(self) -> None:
                self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.asked.append((self.command, self.path))
                if not outer.twist(self, self.command, self.path):
                    outer.behave(self)

            do_GET = do_HEAD = do_POST = do_PUT = serve  # noqa: N815

            def answer(self, status: int, body: bytes = b"", **headers: str) -> bool:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    with contextlib.suppress(OSError):
                        self.wfile.write(body)
                return True

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args: Any) -> None:
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def behave(self, handler: Any) -> None:
        method, path = handler.command, handler.path
        prefix = f"/v2/{REPOSITORY}"
        name = path.rpartition("/")[2]
        if method == "POST":
            handler.answer(202, Location=f"{prefix}/blobs/uploads/1?state=x")
        elif method == "PUT" and "/uploads/" in path:
            digest = path.partition("digest=")[2].replace("%3A", ":")
            self.blobs[digest] = handler.body
            handler.answer(201, Docker_Content_Digest=digest)
        elif method == "PUT":
            self.manifests[name] = handler.body
            handler.answer(201, Docker_Content_Digest=digest_of(handler.body))
        else:
            kept = self.manifests if "/manifests/" in path else self.blobs
            found = kept.get(name)
            if found is None:
                handler.answer(404)
            else:
                handler.answer(200, found, Docker_Content_Digest=digest_of(found))


@pytest.fixture
def bad() -> Iterator[BadRegistry]:
    stub = BadRegistry()
    yield stub
    stub.server.shutdown()
    stub.server.server_close()


def test_the_bad_registry_is_good_by_itself(bad: BadRegistry) -> None:
    with store_at(bad.url) as store:
        assert store.push(artifact()).is_new
        assert store.pull(artifact().digest) == artifact().content


def test_a_manifest_whose_content_is_gone_is_pushed_anew(bad: BadRegistry) -> None:
    with store_at(bad.url) as store:
        store.push(artifact())
        del bad.blobs[artifact().digest]
        assert store.push(artifact()).is_new
        assert store.push(artifact()).is_new is False
    assert bad.blobs[artifact().digest] == artifact().content


def _lie_about_blob(handler: Any, method: str, path: str) -> bool:
    is_it = method == "PUT" and "/uploads/" in path
    return is_it and handler.answer(201, Docker_Content_Digest=digest_of(b"else"))


def _lie_about_manifest(handler: Any, method: str, path: str) -> bool:
    is_it = method == "PUT" and "/manifests/" in path
    return is_it and handler.answer(201, Docker_Content_Digest=digest_of(b"else"))


def _keep_another_manifest(handler: Any, method: str, path: str) -> bool:
    return method == "GET" and "/manifests/" in path and handler.answer(200, b'{"layers": []}')


def _keep_other_bytes(handler: Any, method: str, path: str) -> bool:
    return method == "GET" and "/blobs/" in path and handler.answer(200, b"# Wether\n.")


def _say_it_is_there(handler: Any, method: str, path: str) -> bool:
    """That is: the content, and then does not give it."""
    return method == "GET" and "/blobs/" in path and handler.answer(404)


@pytest.mark.parametrize(
    ("twist", "error"),
    [
        (_lie_about_blob, DigestMismatchError),
        (_lie_about_manifest, DigestMismatchError),
        (_keep_another_manifest, DigestMismatchError),
        (_keep_other_bytes, DigestMismatchError),
        (_say_it_is_there, BlobNotFoundError),
    ],
)
def test_a_push_takes_nothing_on_the_registrys_word(bad: BadRegistry, twist: Any, error: Any) -> None:
    bad.twist = twist
    with store_at(bad.url) as store, pytest.raises(error):
        store.push(artifact())


def test_a_pull_gives_nothing_that_does_not_fit_its_digest(bad: BadRegistry) -> None:
    digest = digest_of(b"right")
    with store_at(bad.url) as store:
        bad.blobs[digest] = b"right"
        assert store.pull(digest) == b"right"
        bad.blobs[digest] = b"wrong"
        with pytest.raises(DigestMismatchError):
            store.pull(digest)
        bad.twist = lambda handler, method, path: handler.answer(200, b"\x1f\x8b", Content_Encoding="gzip")
        with pytest.raises(RegistryRefusedError, match="compresses"):
            store.pull(digest)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_nothing_leads_out_of_the_registrys_origin(bad: BadRegistry, method: str) -> None:
    elsewhere = BadRegistry()
    try:
        target = f"{elsewhere.url}/v2/{REPOSITORY}/blobs/{artifact().digest}"

        def lead_away(handler: Any, asked: str, path: str) -> bool:
            if asked != method:
                return False
            return bool(handler.answer(202 if asked == "POST" else 307, Location=target))

        bad.twist = lead_away
        with (
            store_at(bad.url, username="u", password="p") as store,
            pytest.raises(RegistryRefusedError, match="redirect"),
        ):
            store.push(artifact())
        assert elsewhere.asked == []
    finally:
        elsewhere.server.shutdown()
        elsewhere.server.server_close()


def test_a_redirect_within_the_origin_is_followed_but_not_for_ever(bad: BadRegistry) -> None:
    bad.blobs[artifact().digest] = artifact().content

    def move(handler: Any, method: str, path: str) -> bool:
        if path.startswith("/v2/"):
            return bool(handler.answer(307, Location=f"/moved{path}"))
        return path.startswith("/round") and bool(handler.answer(302, Location="/round"))

    bad.twist = move
    with store_at(bad.url) as store:
        assert store.pull(artifact().digest) == artifact().content
        bad.twist = lambda handler, method, path: handler.answer(302, Location=path)
        with pytest.raises(RegistryRefusedError, match="more than 3"):
            store.pull(artifact().digest)
    assert len(bad.asked) == 2 + 4


@pytest.mark.parametrize("status", [500, 429])
def test_a_failure_half_way_is_tried_again(bad: BadRegistry, status: int) -> None:
    failed: list[str] = []

    def fail_once(handler: Any, method: str, path: str) -> bool:
        is_upload = "/uploads/1" in path
        if is_upload or f"{method} {path}" in failed:
            return False
        failed.append(f"{method} {path}")
        return bool(handler.answer(status, b"<html>secret</html>"))

    bad.twist = fail_once
    with store_at(bad.url) as store:
        assert store.push(artifact()).is_new
    assert len(failed) == 6

    bad.twist = lambda handler, method, path: (
        method == "PUT" and handler.answer(500, b'{"errors":[{"code":"UNKNOWN"}]}')
    )
    with store_at(bad.url) as store, pytest.raises(RegistryUnavailableError, match=r"500 \(UNKNOWN\)"):
        store.push(artifact(b"other"))


def test_what_hangs_breaks_off_or_never_ends_is_given_up(bad: BadRegistry) -> None:
    release = threading.Event()

    def hang(handler: Any, method: str, path: str) -> bool:
        release.wait(20)
        handler.close_connection = True
        return True

    def break_off(handler: Any, method: str, path: str) -> bool:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
        handler.close_connection = True
        return True

    def drip(handler: Any, method: str, path: str) -> bool:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        with contextlib.suppress(OSError):
            for _ in range(100):
                handler.wfile.write(b"x")
                handler.wfile.flush()
                if release.wait(0.1):
                    break
        handler.close_connection = True
        return True

    try:
        with store_at(bad.url, timeout_seconds=0.4) as store:
            for twist in (hang, break_off, drip):
                bad.twist = twist
                began = time.monotonic()
                with pytest.raises(RegistryUnavailableError):
                    store.pull(artifact().digest, tries=1)
                assert time.monotonic() - began < 10
    finally:
        release.set()


def test_answers_that_make_no_sense_are_refused(bad: BadRegistry) -> None:
    def refused(**answer: Any) -> str:
        bad.twist = lambda handler, method, path: handler.answer(**answer)
        with store_at(bad.url, username="u", password="p") as store, pytest.raises(RegistryError) as caught:
            store.push(artifact())
        return str(caught.value)

    assert "scheme" in refused(status=401, WWW_Authenticate="Negotiate")
    assert "another origin" in refused(status=401, WWW_Authenticate='Bearer realm="file:///etc/passwd"')
    assert "another origin" in refused(status=401, WWW_Authenticate='Bearer realm="http://169.254.169.254/"')
    assert "not allow" in refused(status=401, WWW_Authenticate='Basic realm="x"')
    assert "not allow" in refused(status=403)
    assert "redirect" in refused(status=302)


def test_a_token_server_that_gives_nonsense_is_refused(bad: BadRegistry) -> None:
    for body in (b"", b"[]", b"{}", b'{"token": 5}', b'{"token": "a\\nb"}', b'{"token": "\\u00e9"}'):

        def twist(handler: Any, method: str, path: str, body: bytes = body) -> bool:
            if path.startswith("/token"):
                return bool(handler.answer(200, body))
            return bool(handler.answer(401, WWW_Authenticate=f'Bearer realm="{bad.url}/token",service="s"'))

        bad.twist = twist
        with store_at(bad.url) as store, pytest.raises(RegistryRefusedError, match="no token"):
            store.push(artifact())


# --- Pure ------------------------------------------------------------------------------------------------------------


def test_tags_are_valid_and_never_shared() -> None:
    pairs = [
        ("a", "1.0.0-2.0.0"), ("a-1.0.0", "2.0.0"), ("a", "1.0.0+2"), ("a", "1.0.0"), ("A", "1.0.0"), ("ä", "1.0.0"),
        ("a b", "1.0.0"), ("a_b", "1.0.0"), ("x" * 253, "1.0.0"), ("x" * 252, "1.0.0"), ("a", "1.0.0-" + "x" * 120),
        ("a", "1.0.0-" + "x" * 121), ("___", "1.0.0"), ("日本", "1.0.0"),
    ]  # fmt: skip
    tags = [tag_of(name, version) for name, version in pairs]
    assert len(set(tags)) == len(pairs)
    import re

    assert all(re.fullmatch(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", tag) for tag in tags), tags


def test_a_manifest_follows_from_the_bundle_alone() -> None:
    made = artifact()
    assert made == artifact()
    assert made.manifest != artifact(version="1.2.1").manifest
    assert made.digest == "sha256:" + hashlib.sha256(b"# Weather\n").hexdigest()
    assert json.loads(made.manifest)["schemaVersion"] == 2


def test_challenges_are_read_as_registries_write_them() -> None:
    found = parse_challenge('Bearer realm="https://auth.example/token",service="r",scope="repository:a/b:pull,push"')
    assert found is not None
    assert (found.scheme, found.realm, found.service, found.scope) == (
        "bearer", "https://auth.example/token", "r", "repository:a/b:pull,push",
    )  # fmt: skip
    assert parse_challenge("BASIC realm=x") is not None
    assert parse_challenge("Digest realm=x") is None
    assert parse_challenge("") is None
