"""Push and pull of bundles, with every digest verified on the way in and on the way out.

Why not a client library such as oras: it follows redirects to wherever the registry says, with credentials, sets no
bound on time and size, believes the registry's word about digests, and brings a second HTTP stack. What is needed of
the protocol is seven requests.
"""

import contextlib
import threading
from dataclasses import dataclass

from django.conf import settings

from skills.oci.artifact import DIGEST, EMPTY, EMPTY_DIGEST, MANIFEST_TYPE, Artifact, digest_of
from skills.oci.errors import BlobNotFoundError, DigestMismatchError, RegistryRefusedError
from skills.oci.registry import SMALL_BYTES, Registry, RegistryOptions

MAX_CONTENT_BYTES = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Pushed:
    """Where an artifact is.

    Attributes:
        digest: the manifest's, by which the registry knows it.
        reference: what other tools pull it by: `host/repository:tag@digest`.
        is_new: False when it was there already, whole.
    """

    digest: str
    reference: str
    is_new: bool


class OciStore:
    """One repository of one registry."""

    def __init__(self, options: RegistryOptions, repository: str) -> None:
        self.registry = Registry(options)
        self.repository = repository
        self._path = f"/v2/{repository}"
        self._scope = f"repository:{repository}:pull,push"

    def close(self) -> None:
        self.registry.close()

    def ping(self) -> None:
        """Return when the registry answers; with or without a login is all the same.

        Raises:
            RegistryError: it does not, or is no registry.
        """
        self.registry.request("GET", "/v2/", expect=(200,), tries=1)

    def reference_of(self, artifact: Artifact) -> str:
        """What an artifact can be pulled by."""
        _, _, host = self.registry.options.url.partition("://")
        return f"{host}/{self.repository}:{artifact.tag}@{artifact.manifest_digest}"

    def has(self, artifact: Artifact) -> bool:
        """Whether the registry has the artifact under its tag, and says that it has the content.

        Raises:
            RegistryError
        """
        return self._is_tagged(artifact) and self.has_blob(artifact.digest)

    def _is_tagged(self, artifact: Artifact) -> bool:
        answer = self.registry.request(
            "HEAD",
            f"{self._path}/manifests/{artifact.tag}",
            expect=(200, 404),
            scope=self._scope,
            headers={"Accept": MANIFEST_TYPE},
        )
        return answer.status == 200 and answer.headers.get("docker-content-digest") == artifact.manifest_digest

    def has_blob(self, digest: str) -> bool:
        """Whether the registry says that it has a blob.

        Raises:
            RegistryError
        """
        answer = self.registry.request("HEAD", f"{self._path}/blobs/{digest}", expect=(200, 404), scope=self._scope)
        return answer.status == 200

    def push(self, artifact: Artifact) -> Pushed:
        """Bring an artifact into the registry, and read back that it is there. Pushing again changes nothing.

        The row may lose its content once this has returned, so nothing is taken on the registry's word.

        Raises:
            RegistryUnavailableError: try later.
            DigestMismatchError: the registry has something else under the digest.
            RegistryRefusedError
        """
        reference = self.reference_of(artifact)
        if self._is_tagged(artifact):
            # A manifest whose content is gone is as good as none.
            with contextlib.suppress(BlobNotFoundError):
                self._read_back(artifact)
                return Pushed(artifact.manifest_digest, reference, is_new=False)
        # Asked each time: a registry that was emptied or replaced meanwhile would refuse every manifest.
        if not self.has_blob(EMPTY_DIGEST):
            self._push_blob(EMPTY, EMPTY_DIGEST)
        self._push_blob(artifact.content, artifact.digest)
        answer = self.registry.request(
            "PUT",
            f"{self._path}/manifests/{artifact.tag}",
            expect=(200, 201),
            scope=self._scope,
            headers={"Content-Type": MANIFEST_TYPE},
            body=artifact.manifest,
        )
        self._check_told(answer.headers.get("docker-content-digest"), artifact.manifest_digest)
        self._read_back(artifact)
        return Pushed(artifact.manifest_digest, reference, is_new=True)

    def pull(self, digest: str, *, tries: int = 3, max_bytes: int = MAX_CONTENT_BYTES) -> bytes:
        """The blob of that digest.

        Raises:
            BlobNotFoundError: the registry does not have it.
            DigestMismatchError: it gives something else.
            RegistryUnavailableError, RegistryRefusedError
        """
        if not DIGEST.fullmatch(digest):
            raise RegistryRefusedError("The digest is not sha256: and 64 hexadecimal digits.")
        answer = self.registry.request(
            "GET",
            f"{self._path}/blobs/{digest}",
            expect=(200,),
            scope=self._scope,
            max_bytes=max_bytes,
            tries=tries,
        )
        if digest_of(answer.body) != digest:
            raise DigestMismatchError(f"The registry gives something else for {digest}.")
        return answer.body

    def _push_blob(self, content: bytes, digest: str) -> None:
        # Of little content the question costs as much as the answer saves.
        if len(content) > SMALL_BYTES and self.has_blob(digest):
            return
        began = f"{self._path}/blobs/uploads/"
        # Beginning an upload twice leaves one behind that the registry clears away by itself.
        answer = self.registry.request("POST", began, expect=(202,), scope=self._scope, headers={"Content-Length": "0"})
        location = self.registry.within(answer.headers.get("location", ""), began)
        joint = "&" if "?" in location else "?"
        # An upload's address serves once: when it fails, the whole push is tried again.
        answer = self.registry.request(
            "PUT",
            f"{location}{joint}digest={digest}",
            expect=(201,),
            scope=self._scope,
            headers={"Content-Type": "application/octet-stream"},
            body=content,
            tries=1,
        )
        self._check_told(answer.headers.get("docker-content-digest"), digest)

    def _read_back(self, artifact: Artifact) -> None:
        answer = self.registry.request(
            "GET",
            f"{self._path}/manifests/{artifact.tag}",
            expect=(200,),
            scope=self._scope,
            headers={"Accept": MANIFEST_TYPE},
            max_bytes=SMALL_BYTES,
        )
        if answer.body != artifact.manifest:
            raise DigestMismatchError("The registry has another manifest under the tag than the one that was pushed.")
        self.pull(artifact.digest, max_bytes=len(artifact.content))

    def _check_told(self, told: str | None, digest: str) -> None:
        # The header is optional; where it is, it has to be right.
        if told is not None and told != digest:
            raise DigestMismatchError("The registry says another digest than that of what was pushed.")


_lock = threading.Lock()
_stores: dict[tuple[RegistryOptions, str], OciStore] = {}


def store(*, timeout_seconds: int | None = None) -> OciStore | None:
    """The store that the settings name; None without one. A process has one for each timeout.

    Args:
        timeout_seconds: for those who can wait less long than the settings say.
    """
    if not settings.SKILL_OCI_REGISTRY_URL:
        return None
    patience: int = settings.SKILL_OCI_TIMEOUT_SECONDS
    options = RegistryOptions(
        url=settings.SKILL_OCI_REGISTRY_URL,
        username=settings.SKILL_OCI_USERNAME,
        password=settings.SKILL_OCI_PASSWORD,
        auth_origins=tuple(settings.SKILL_OCI_AUTH_ORIGINS),
        ca_file=settings.SKILL_OCI_CA_FILE,
        verify_tls=settings.SKILL_OCI_TLS_VERIFY,
        timeout_seconds=min(patience, timeout_seconds or patience),
    )
    key = (options, settings.SKILL_OCI_REPOSITORY)
    with _lock:
        found = _stores.get(key)
        if found is None:
            found = _stores[key] = OciStore(*key)
        return found


def forget_stores() -> None:
    """Close the process's connections to the registry."""
    with _lock:
        for each in _stores.values():
            each.close()
        _stores.clear()
