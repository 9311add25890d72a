"""Create, update, patch, apply and delete: what a write does to an object before it is stored."""

from __future__ import annotations

import copy
import secrets
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from devstack.cluster import apply as ssa
from devstack.cluster import builtin_rules, errors, patches
from devstack.cluster import schema as structural
from devstack.cluster.errors import Cause
from devstack.cluster.fields import same
from devstack.cluster.kinds import Resource
from devstack.cluster.store import Entry, Store

Object = dict[str, Any]

_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
_METADATA = {
    "name": str, "generateName": str, "namespace": str, "uid": str, "resourceVersion": str, "generation": int,
    "creationTimestamp": str, "deletionTimestamp": str, "deletionGracePeriodSeconds": int, "labels": dict,
    "annotations": dict, "finalizers": list, "ownerReferences": list, "managedFields": list, "selfLink": str,
}  # fmt: skip
_SERVER_OWNED = (
    "uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds", "generateName",
)  # fmt: skip
# The real strategies of these answer a DELETE with the object, all others with a Status.
_RETURNS_DELETED = frozenset({"pods", "services", "serviceaccounts", "persistentvolumeclaims", "resourcequotas"})
FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"


def timestamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(slots=True)
class Options:
    """What the query string says about a write; `warnings` is filled in for the Warning headers."""

    dry_run: bool = False
    manager: str = "unknown"
    validation: str = "Warn"
    force: bool = False
    warnings: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Deletion:
    """DeleteOptions."""

    uid: str | None = None
    resource_version: str | None = None
    policy: str = ""
    dry_run: bool = False


class Writer:
    """Everything that changes the store on behalf of a client or a controller."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # --- create ---------------------------------------------------------------------------------------------------

    def create(self, resource: Resource, namespace: str, body: Any, options: Options) -> Object:
        """Store a new object and return it. Raises StatusError."""
        obj = self._decode(resource, body, options)
        metadata = obj["metadata"]
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = self._generate_name(resource, namespace, metadata["generateName"])
        self._check_namespace(resource, namespace, metadata)
        if metadata.get("resourceVersion"):
            raise errors.bad_request("resourceVersion should not be set on objects to be created")
        metadata.pop("uid", None)
        return self._insert(resource, namespace, obj, None, options)

    def _generate_name(self, resource: Resource, namespace: str, prefix: str) -> str:
        prefix = prefix[:58]
        while True:
            name = prefix + "".join(secrets.choice(_SUFFIX) for _ in range(5))
            if self._store.get(resource.storage, namespace if resource.namespaced else "", name) is None:
                return name

    def _insert(
        self, resource: Resource, namespace: str, obj: Object, books: ssa.Books | None, options: Options
    ) -> Object:
        metadata = obj["metadata"]
        name = metadata.get("name") or ""
        if resource.namespaced:
            metadata["namespace"] = namespace
            self._require_namespace(resource, namespace, name)
        else:
            metadata.pop("namespace", None)
        for key in (*_SERVER_OWNED, "resourceVersion", "selfLink", "managedFields"):
            if key != "generateName":
                metadata.pop(key, None)
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = timestamp()
        metadata["generation"] = 1
        if resource.has_status:
            obj.pop("status", None)
        self._complete(resource, obj, None, "")
        if not resource.counts_generations:
            metadata.pop("generation", None)
        if self._store.get(resource.storage, metadata.get("namespace", ""), name) is not None:
            raise errors.already_exists(resource.group, resource.plural, name)
        if books is None:
            writer = ssa.Manager(options.manager, "Update", resource.api_version)
            ignored = resource.ignored("")
            books = ssa.book_update({}, {"metadata": {}}, obj, resource.type, writer, timestamp(), ignored)
        metadata["managedFields"] = ssa.write_books(books)
        obj = _ordered(obj)
        if resource.plural == "customresourcedefinitions":
            _establish(obj)
        if not options.dry_run:
            self._store.put(resource.storage, obj)
        return obj

    def _require_namespace(self, resource: Resource, namespace: str, name: str) -> None:
        entry = self._store.get("namespaces", "", namespace)
        if entry is None:
            raise errors.not_found("", "namespaces", namespace)
        if b'"deletionTimestamp"' in entry.raw and entry.load()["metadata"].get("deletionTimestamp"):
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            cause = Cause("NamespaceTerminating", "metadata.namespace", f"namespace {namespace} is being terminated")
            raise errors.forbidden(resource.group, resource.plural, name, why, [cause])

    # --- checks shared by all writes -------------------------------------------------------------------------------

    def _decode(self, resource: Resource, body: Any, options: Options) -> Object:
        """A body as an object of the right kind, pruned to its schema."""
        kind_of = f'{resource.kind} in version "{resource.version}"'
        if not isinstance(body, dict):
            raise errors.bad_request(f"{kind_of} cannot be handled as a {resource.kind}: not an object")
        if resource.custom and not body.get("kind"):
            raise errors.bad_request("Object 'Kind' is missing in the request body")
        kind, api_version = body.get("kind", resource.kind), body.get("apiVersion", resource.api_version)
        if kind != resource.kind or api_version != resource.api_version:
            message = (
                f"the API version in the data ({api_version}, Kind={kind}) does not match the expected API version"
                f" ({resource.api_version}, Kind={resource.kind})"
            )
            raise errors.bad_request(message)
        obj = {**body, "apiVersion": resource.api_version, "kind": resource.kind}
        dropped: list[str] = []
        metadata = obj.get("metadata")
        if metadata is None:
            metadata = {}
        obj["metadata"] = _clean_metadata(metadata, kind_of, resource.kind, dropped)
        if resource.schema is not None:
            obj = structural.prune(obj, resource.schema, "", dropped, root=True)
        if dropped and options.validation != "Ignore":
            listed = [f'unknown field "{path}"' for path in dropped]
            if options.validation == "Strict":
                why = f"strict decoding error: {', '.join(listed)}"
                raise errors.bad_request(f"{kind_of} cannot be handled as a {resource.kind}: {why}")
            options.warnings += listed
        return obj

    def _check_namespace(self, resource: Resource, namespace: str, metadata: Object) -> None:
        given = metadata.get("namespace")
        if resource.namespaced and given and given != namespace:
            message = "the namespace of the provided object does not match the namespace sent on the request"
            raise errors.bad_request(message)

    def _complete(self, resource: Resource, obj: Object, old: Object | None, subresource: str) -> None:
        """Defaults and validation; 422 when anything is wrong."""
        causes: list[Cause] = []
        if not subresource:
            causes = builtin_rules.metadata_causes(resource, obj["metadata"])
        if resource.schema is not None:
            if resource.schema.defaults_below:
                structural.fill_defaults(obj, resource.schema)
            structural.validate(obj, resource.schema, "", causes, root=True)
        elif faults := ssa.type_faults(obj, resource.type, ""):
            kind_of = f'{resource.kind} in version "{resource.version}"'
            raise errors.bad_request(f"{kind_of} cannot be handled as a {resource.kind}: {faults[0]}")
        elif not subresource:
            causes += builtin_rules.complete(resource, obj, old)
        if causes:
            raise errors.invalid(resource.group, resource.kind, obj["metadata"].get("name", ""), causes)

    # --- update ---------------------------------------------------------------------------------------------------

    def find(self, resource: Resource, namespace: str, name: str) -> Entry:
        entry = self._store.get(resource.storage, namespace if resource.namespaced else "", name)
        if entry is None:
            raise errors.not_found(resource.group, resource.plural, name)
        return entry

    def load(self, resource: Resource, entry: Entry) -> Object:
        """An object as the clients of `resource` see it: its version, today's fields and today's defaults."""
        obj = entry.load()
        if resource.schema is not None:
            if entry.rv <= resource.defined_rv:
                obj = structural.prune(obj, resource.schema, "", [], root=True)
            obj["apiVersion"] = resource.api_version
            structural.fill_defaults(obj, resource.schema)
        return obj

    def update(
        self, resource: Resource, namespace: str, name: str, body: Any, subresource: str, options: Options
    ) -> Object:
        """PUT: replace an object, or its status."""
        obj = self._decode(resource, body, options)
        metadata = obj["metadata"]
        self._check_namespace(resource, namespace, metadata)
        if metadata.setdefault("name", name) != name:
            message = f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})"
            raise errors.bad_request(message)
        old = self.load(resource, self.find(resource, namespace, name))
        if resource.custom and not metadata.get("resourceVersion"):
            why = "Invalid value: 0x0: must be specified for an update"
            cause = Cause("FieldValueInvalid", "metadata.resourceVersion", why)
            raise errors.invalid(resource.group, resource.kind, name, [cause])
        return self._replace(resource, old, obj, subresource, options, None)

    def patch(
        self, resource: Resource, namespace: str, name: str, patch: Any, how: str, subresource: str, options: Options
    ) -> Object:
        """PATCH by JSON patch, merge patch or strategic merge patch (`how` is "json", "merge" or "strategic")."""
        old = self.load(resource, self.find(resource, namespace, name))
        if how == "json":
            try:
                new = patches.json_patch(old, patch)
            except patches.PatchFailedError as exc:
                raise patches.failed(resource.group, resource.kind, name, exc) from exc
        elif not isinstance(patch, dict):
            raise errors.bad_request(
                "error decoding patch: json: cannot unmarshal into Go value of type map[string]interface {}"
            )
        elif how == "merge":
            new = patches.merge_patch(old, patch)
        else:
            new = patches.strategic_patch(old, patch, resource.type)
        # What was stored belongs to the object; only what the patch brings may be complained about.
        obj = self._decode(resource, copy.deepcopy(new), options)
        for key in ("name", "namespace"):
            if obj["metadata"].get(key) != old["metadata"].get(key):
                why = f'Invalid value: "{obj["metadata"].get(key)}": field is immutable'
                cause = Cause("FieldValueInvalid", f"metadata.{key}", why)
                raise errors.invalid(resource.group, resource.kind, name, [cause])
        return self._replace(resource, old, obj, subresource, options, None)

    def apply(
        self, resource: Resource, namespace: str, name: str, config: Any, subresource: str, options: Options
    ) -> tuple[Object, bool]:
        """Server-side apply. Returns the object and whether it is new."""
        if not isinstance(config, dict):
            raise errors.bad_request("error decoding YAML: not an object")
        for key in ("apiVersion", "kind"):
            if not config.get(key):
                raise errors.bad_request(f"Object '{key[0].upper()}{key[1:]}' is missing in the applied configuration")
        sent = config.get("metadata") or {}
        if isinstance(sent, dict) and sent.get("managedFields"):
            raise errors.bad_request("metadata.managedFields must be nil")
        what = f"{namespace + '/' if resource.namespaced else ''}{name}; {resource.api_version}, Kind={resource.kind}"
        ssa.check_typed(config, resource.type, what)
        lenient = Options(validation="Ignore")
        config = self._decode(resource, config, lenient)
        metadata = config["metadata"]
        self._check_namespace(resource, namespace, metadata)
        if metadata.setdefault("name", name) != name:
            message = f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})"
            raise errors.bad_request(message)
        if resource.namespaced:
            metadata["namespace"] = namespace
        writer = ssa.Manager(options.manager, "Apply", resource.api_version, subresource)
        ignored = resource.ignored(subresource)
        entry = self._store.get(resource.storage, namespace if resource.namespaced else "", name)
        if entry is None:
            if subresource:
                raise errors.not_found(resource.group, resource.plural, name)
            if metadata.get("uid"):
                given = f"the provided object specified uid {metadata['uid']}"
                why = f"uid mismatch: {given}, and no existing object was found"
                raise errors.conflict(resource.group, resource.plural, name, why)
            new, books = ssa.apply(None, config, resource.type, writer, timestamp(), options.force, ignored)
            return self._insert(resource, namespace, copy.deepcopy(new), books, options), True
        old = self.load(resource, entry)
        self._check_preconditions(resource, old, metadata)
        new, books = ssa.apply(old, config, resource.type, writer, timestamp(), options.force, ignored)
        obj = copy.deepcopy(new)
        obj["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
        return self._replace(resource, old, obj, subresource, options, books), False

    def _check_preconditions(self, resource: Resource, old: Object, metadata: Object) -> None:
        name, before = old["metadata"]["name"], old["metadata"]
        if metadata.get("uid") and metadata["uid"] != before["uid"]:
            why = f"Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta: {before['uid']}"
            raise errors.conflict(resource.group, resource.plural, name, why)
        version = metadata.get("resourceVersion")
        if version and version != "0" and version != before["resourceVersion"]:
            raise errors.conflict(resource.group, resource.plural, name, errors.MODIFIED)

    def _replace(
        self, resource: Resource, old: Object, new: Object, subresource: str, options: Options, books: ssa.Books | None
    ) -> Object:
        """Store `new` in place of `old`; `books` is None unless server-side apply has kept them already."""
        metadata, before = new["metadata"], old["metadata"]
        self._check_preconditions(resource, old, metadata)
        sent_books = metadata.pop("managedFields", None)
        if subresource:
            new = {**copy.deepcopy(old), subresource: new.get(subresource)}
            if new[subresource] is None:
                del new[subresource]
            metadata = new["metadata"] = {k: v for k, v in before.items() if k != "managedFields"}
        elif resource.has_status:
            new.pop("status", None)
            if "status" in old:
                new["status"] = copy.deepcopy(old["status"])
        for key in _SERVER_OWNED:
            if key in before:
                metadata[key] = before[key]
            else:
                metadata.pop(key, None)
        metadata["name"] = before["name"]
        if "namespace" in before:
            metadata["namespace"] = before["namespace"]
        metadata["resourceVersion"] = before["resourceVersion"]
        self._check_finalizers(resource, before, metadata)
        self._complete(resource, new, old, subresource)
        if subresource == "" and resource.counts_generations and not _same_but(old, new, "metadata", "status"):
            metadata["generation"] = before.get("generation", 0) + 1
        if resource.plural == "customresourcedefinitions":
            _establish(new, old)
        if books is None:
            reset = sent_books is not None and (not sent_books or sent_books == [{}]) and not subresource
            known = ssa.read_books(
                sent_books if sent_books and not reset and not subresource else before.get("managedFields")
            )
            writer = ssa.Manager(options.manager, "Update", resource.api_version, subresource)
            books = {} if sent_books == [{}] else ssa.book_update(
                known, old, new, resource.type, writer, timestamp(), resource.ignored(subresource)
            )  # fmt: skip
        bare = {k: v for k, v in before.items() if k != "managedFields"}
        unchanged = _same_but(old, new, "metadata") and same(bare, metadata)
        if unchanged and _same_books(ssa.read_books(before.get("managedFields")), books):
            return old
        metadata["managedFields"] = ssa.write_books(books)
        new = _ordered(new)
        if options.dry_run:
            return new
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers") and not _held(resource, new):
            return self._store.remove(resource.storage, metadata.get("namespace", ""), metadata["name"]).load()
        self._store.put(resource.storage, new)
        return new

    def _check_finalizers(self, resource: Resource, before: Object, metadata: Object) -> None:
        if not before.get("deletionTimestamp"):
            return
        extra = set(metadata.get("finalizers") or ()) - set(before.get("finalizers") or ())
        if extra:
            shown = ", ".join(f'"{name}"' for name in sorted(extra))
            why = "no new finalizers can be added if the object is being deleted, found new finalizers"
            cause = Cause("FieldValueForbidden", "metadata.finalizers", f"Forbidden: {why} [{shown}]")
            raise errors.invalid(resource.group, resource.kind, metadata["name"], [cause])

    # --- delete ---------------------------------------------------------------------------------------------------

    def delete(self, resource: Resource, namespace: str, name: str, deletion: Deletion) -> Object:
        """Delete, or mark for deletion when finalizers hold the object. Returns the answer's body."""
        entry = self.find(resource, namespace, name)
        obj = self.load(resource, entry)
        metadata = obj["metadata"]
        what = "Precondition failed"
        if deletion.uid and deletion.uid != metadata["uid"]:
            why = f"{what}: UID in precondition: {deletion.uid}, UID in object meta: {metadata['uid']}"
            raise errors.conflict(resource.group, resource.plural, name, why)
        if deletion.resource_version and deletion.resource_version != metadata["resourceVersion"]:
            wanted, found = deletion.resource_version, metadata["resourceVersion"]
            why = f"{what}: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {found}"
            raise errors.conflict(resource.group, resource.plural, name, why)
        finalizers = list(metadata.get("finalizers") or ())
        dependents = self._store.dependents(metadata["uid"])
        if deletion.policy == "Foreground" and dependents and FOREGROUND not in finalizers:
            finalizers.append(FOREGROUND)
        if deletion.policy == "Orphan" and not deletion.dry_run:
            self._orphan(metadata["uid"])
        if not finalizers and not _held(resource, obj):
            if not deletion.dry_run:
                last = self._store.remove(resource.storage, entry.namespace, name)
                obj = self.load(resource, last)
            return obj if resource.storage in _RETURNS_DELETED else _deleted(resource, metadata)
        if metadata.get("deletionTimestamp") and finalizers == list(metadata.get("finalizers") or ()):
            return obj
        metadata.setdefault("deletionTimestamp", timestamp())
        metadata.setdefault("deletionGracePeriodSeconds", 0)
        if finalizers:
            metadata["finalizers"] = finalizers
        if "generation" in metadata:
            metadata["generation"] += 1
        if resource.storage == "namespaces":
            obj.setdefault("status", {})["phase"] = "Terminating"
        if not deletion.dry_run:
            self._store.put(resource.storage, obj)
        return obj

    def _orphan(self, uid: str) -> None:
        for storage, (namespace, name) in self._store.dependents(uid):
            entry = self._store.get(storage, namespace, name)
            if entry is None:
                continue
            obj = entry.load()
            kept = [owner for owner in obj["metadata"]["ownerReferences"] if owner.get("uid") != uid]
            if kept:
                obj["metadata"]["ownerReferences"] = kept
            else:
                del obj["metadata"]["ownerReferences"]
            self._store.put(storage, obj)

    def finalize_namespace(self, name: str, body: Any) -> Object:
        """PUT namespaces/{name}/finalize: set spec.finalizers; the last one gone ends a deletion."""
        entry = self._store.get("namespaces", "", name)
        if entry is None:
            raise errors.not_found("", "namespaces", name)
        obj = entry.load()
        spec = body.get("spec") if isinstance(body, dict) else None
        obj["spec"] = {"finalizers": list((spec or {}).get("finalizers") or ())}
        metadata = obj["metadata"]
        if metadata.get("deletionTimestamp") and not obj["spec"]["finalizers"] and not metadata.get("finalizers"):
            return self._store.remove("namespaces", "", name).load()
        self._store.put("namespaces", obj)
        return obj


def _clean_metadata(metadata: Any, kind_of: str, kind: str, dropped: list[str]) -> Object:
    if not isinstance(metadata, dict):
        raise errors.bad_request(f"{kind_of} cannot be handled as a {kind}: metadata is no object")
    out: Object = {}
    for key, value in metadata.items():
        wanted = _METADATA.get(key)
        if wanted is None:
            dropped.append(f"metadata.{key}")
            continue
        if value is None:
            continue
        strings = key in {"labels", "annotations"} and isinstance(value, dict)
        texts = value.values() if strings else value if key == "finalizers" and isinstance(value, list) else ()
        maps = value if key in {"ownerReferences", "managedFields"} and isinstance(value, list) else ()
        fits = isinstance(value, wanted) and all(isinstance(v, str) for v in texts if v is not None)
        if not fits or not all(isinstance(v, dict) for v in maps):
            why = f"json: cannot unmarshal into Go struct field ObjectMeta.metadata.{key}"
            raise errors.bad_request(f"{kind_of} cannot be handled as a {kind}: {why}")
        if strings:
            value = {name: text or "" for name, text in value.items()}  # noqa: PLW2901
        if value or not isinstance(value, dict | list) or key == "managedFields":
            out[key] = value
    return out


def _ordered(obj: Object) -> Object:
    """apiVersion, kind and metadata first, then as sent."""
    first = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": obj["metadata"]}
    return {**first, **obj}


def _same_but(old: Object, new: Object, *ignored: str) -> bool:
    left = {key: value for key, value in old.items() if key not in ignored}
    return same(left, {key: value for key, value in new.items() if key not in ignored})


def _same_books(old: ssa.Books, new: ssa.Books) -> bool:
    return old.keys() == new.keys() and all(old[manager].fields == owned.fields for manager, owned in new.items())


def _held(resource: Resource, obj: Object) -> bool:
    """Whether something other than metadata.finalizers keeps a deleted object in being."""
    return resource.storage == "namespaces" and bool((obj.get("spec") or {}).get("finalizers"))


def _deleted(resource: Resource, metadata: Object) -> Object:
    details = {"name": metadata["name"], "kind": resource.plural, "uid": metadata["uid"]}
    if resource.group:
        details["group"] = resource.group
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def _establish(crd: Object, old: Object | None = None) -> None:
    """Set the status of a definition: here it is served at once."""
    spec = crd["spec"]
    status = crd.setdefault("status", {})
    stored = next(version["name"] for version in spec["versions"] if version.get("storage"))
    before = list((old or {}).get("status", {}).get("storedVersions") or ())
    since = timestamp()
    known = {c["type"]: c for c in status.get("conditions") or ()}
    for kind, reason, message in (
        ("NamesAccepted", "NoConflicts", "no conflicts found"),
        ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
    ):
        fresh = {"type": kind, "status": "True", "lastTransitionTime": since, "reason": reason, "message": message}
        known.setdefault(kind, fresh)
    status["conditions"] = list(known.values())
    status["acceptedNames"] = copy.deepcopy(spec["names"])
    status["storedVersions"] = before if stored in before else [*before, stored]
