"""The Kubernetes API over HTTP: from a path to a resource, from a method to a verb, and back to an answer."""

from __future__ import annotations

import base64
import logging
import re
import sqlite3
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import orjson
import yaml

from devstack.cluster import discovery, errors, patches, rbac, reviews, table
from devstack.cluster import exchange as http
from devstack.cluster.audit import AuditLog
from devstack.cluster.errors import StatusError
from devstack.cluster.exchange import Answer, Format, Request
from devstack.cluster.kinds import Registry, Resource
from devstack.cluster.selectors import field_selector, label_selector
from devstack.cluster.store import Entry, Key, Shelf, Store
from devstack.cluster.tokens import InvalidTokenError, Tokens, User
from devstack.cluster.watch import Selection, Watch
from devstack.cluster.writes import Deletion, Options, Writer

Object = dict[str, Any]
Encoder = Callable[[Entry], bytes]

log = logging.getLogger("devstack.cluster")

DEFAULT_WATCH_SECONDS = 1800.0
MAX_WATCH_SECONDS = 7200.0
_REVIEWS = {(group, version, plural): kind for group, version, plural, kind, _ in discovery.REVIEWS}
_OPEN = {"/healthz", "/livez", "/readyz", "/version"}
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_PATCHES = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}


@dataclass(slots=True)
class Target:
    """What a resource path names. `name` is empty for a collection, `namespace` for all of them."""

    resource: Resource
    namespace: str
    name: str
    subresource: str


class Api:
    """Answers requests; `handle` is everything between ASGI and the store."""

    def __init__(self, store: Store, registry: Registry, tokens: Tokens, audit: AuditLog | None = None) -> None:
        self.store = store
        self.audit = audit or AuditLog(None)
        self.registry = registry
        self.tokens = tokens
        self.writer = Writer(store)
        self.address = ""
        self.watches: set[Watch] = set()

    async def __call__(self, scope: dict[str, Any], receive: http.Receive, send: http.Send) -> None:
        """ASGI entry."""
        if scope["type"] != "http":
            return
        try:
            try:
                answer = self.handle(await http.read_request(scope, receive))
            except StatusError as exc:
                answer = http.status_answer(exc)
            except sqlite3.Error as exc:
                log.exception("the store failed")
                answer = http.status_answer(errors.internal(f"the store failed: {exc}"))
            except (RecursionError, orjson.JSONEncodeError):
                answer = http.status_answer(errors.bad_request("the document is nested too deeply"))
            except ConnectionError:
                return
            except Exception as exc:
                log.exception("%s %s failed", scope["method"], scope["path"])
                answer = http.status_answer(errors.internal(f"{type(exc).__name__}: {exc}"))
            if scope["method"] == "HEAD" and answer.stream is None:
                length = (b"content-length", str(len(answer.body)).encode())
                headers = [(b"content-type", answer.content_type), length, *answer.headers]
                await send({"type": "http.response.start", "status": answer.code, "headers": headers})
                await send({"type": "http.response.body", "body": b""})
                return
            await http.respond(receive, send, answer)
        except (ConnectionError, OSError):
            return

    def stop_watches(self) -> None:
        for watch in list(self.watches):
            watch.watcher.stop()

    # --- who and what -----------------------------------------------------------------------------------------------

    def handle(self, request: Request) -> Answer:
        """Answer one request. Raises StatusError. Never awaits, which makes each write atomic."""
        path = request.path
        if path in _OPEN or path.startswith(("/livez/", "/readyz/")):
            if path == "/version":
                return http.json_answer(discovery.VERSION)
            return Answer(200, b"ok", b"text/plain; charset=utf-8")
        user = self._authenticate(request)
        parts = [part for part in path.split("/") if part]
        match parts:
            case ["api" | "apis" | "openapi" | ".well-known", *_]:
                pass
            case []:
                self._only_get(request)
                return http.json_answer({"paths": ["/api", "/apis", "/healthz", "/openapi/v3", "/version"]})
            case _:
                raise errors.no_such_path()
        if parts[0] in {"openapi", ".well-known"}:
            return self._documents(request, parts)
        listing = self._discovery(request, parts)
        if listing is not None:
            return listing
        if parts[0] == "api":
            group, version, rest = "", parts[1], parts[2:]
        else:
            group, version, rest = parts[1], parts[2], parts[3:]
        answer = self._review(request, group, version, rest, user)
        if answer is not None:
            return answer
        target = self._target(group, version, rest)
        asked = self._asked(request, target)
        code = 403
        try:
            self._authorize(user, asked, *self._creating(request, target, asked))
            try:
                answer = self._serve(request, target)
            except StatusError as exc:
                code = exc.code
                raise
            code = answer.code
            return answer
        finally:
            self.audit.write(user, version, asked, code)

    def _authenticate(self, request: Request) -> User:
        scheme, _, token = request.headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if scheme.lower() != "bearer":
            raise errors.unauthorized()
        try:
            return self.tokens.authenticate(token.strip())[0]
        except InvalidTokenError:
            raise errors.unauthorized() from None

    def _asked(self, request: Request, target: Target) -> rbac.Request:
        """What a request wants, as roles speak of it."""
        resource, name = target.resource, target.name
        verb = _VERBS.get(request.method, "get" if name else "list")
        if verb == "delete" and not name:
            verb = "deletecollection"
        if request.method in {"GET", "HEAD"}:
            verb = "watch" if request.flag("watch") else verb
            if not name:
                # A selector that picks one object by its name counts as that name.
                selected = re.fullmatch(r"metadata\.name={1,2}([^,=]+)", request.query.get("fieldSelector", ""))
                name = selected[1] if selected else ""
        plural = f"{resource.plural}/{target.subresource}" if target.subresource else resource.plural
        return rbac.Request(verb, resource.group, plural, target.namespace if resource.namespaced else "", name)

    def _creating(self, request: Request, target: Target, asked: rbac.Request) -> list[rbac.Request]:
        """An apply of what is not there is a creation as well."""
        is_apply = _PATCHES.get(request.content_type) == "apply" and request.method == "PATCH"
        if not is_apply or target.subresource:
            return []
        resource = target.resource
        found = self.store.get(resource.storage, target.namespace if resource.namespaced else "", target.name)
        return [replace(asked, verb="create")] if found is None else []

    def _authorize(self, user: User, *wanted: rbac.Request) -> None:
        for each in wanted:
            if not rbac.may(self.store, user, each):
                where = f'in the namespace "{each.namespace}"' if each.namespace else "at the cluster scope"
                what = f'resource "{each.resource}" in API group "{each.group}"'
                why = f'User "{user.name}" cannot {each.verb} {what} {where}'
                raise errors.forbidden(each.group, each.resource.partition("/")[0], each.name, why)

    def _only_get(self, request: Request) -> None:
        if request.method not in {"GET", "HEAD"}:
            raise errors.method_not_allowed()

    def _documents(self, request: Request, parts: list[str]) -> Answer:
        self._only_get(request)
        document: Object | None = None
        if parts == ["openapi", "v3"]:
            document = discovery.openapi_index(self.registry)
        elif parts[:3] == ["openapi", "v3", "api"] and len(parts) == 4:
            document = discovery.openapi_document(self.registry, "", parts[3])
        elif parts[:3] == ["openapi", "v3", "apis"] and len(parts) == 5:
            document = discovery.openapi_document(self.registry, parts[3], parts[4])
        if document is None:
            raise errors.no_such_path()
        return http.json_answer(document)

    def _discovery(self, request: Request, parts: list[str]) -> Answer | None:
        """Discovery documents; None when the path goes further."""
        core = parts[0] == "api"
        if len(parts) > (2 if core else 3):
            return None
        self._only_get(request)
        document: Object | None
        if len(parts) == 1:
            form = http.negotiate(request.headers.get(b"accept", b""))
            if form.as_kind == "APIGroupDiscoveryList":
                body = orjson.dumps(discovery.aggregated(self.registry, core=core))
                return Answer(200, body, form.content_type)
            document = discovery.api_versions(self.address) if core else discovery.group_list(self.registry)
        elif len(parts) == 2 and not core:
            versions = discovery.group_versions(self.registry).get(parts[1])
            document = None
            if versions:
                document = {"kind": "APIGroup", "apiVersion": "v1", **discovery.api_group(parts[1], versions)}
        else:
            group = "" if core else parts[1]
            document = discovery.resource_list(self.registry, group, parts[-1])
        if document is None:
            raise errors.no_such_path()
        return http.json_answer(document)

    def _review(self, request: Request, group: str, version: str, rest: list[str], user: User) -> Answer | None:
        plural = rest[-1]
        if (group, version, plural) not in _REVIEWS or len(rest) not in {1, 3}:
            return None
        if request.method != "POST":
            raise errors.method_not_allowed()
        if not plural.startswith("selfsubject"):
            asked = rbac.Request("create", group, plural, rest[1] if len(rest) == 3 else "", "")
            try:
                self._authorize(user, asked)
            finally:
                self.audit.write(user, version, asked, 201 if rbac.may(self.store, user, asked) else 403)
        body = request.document(or_empty=plural == "selfsubjectreviews")
        return http.json_answer(reviews.review(plural, body, user, self.tokens, self.store), 201)

    def _target(self, group: str, version: str, rest: list[str]) -> Target:
        if len(rest) >= 3 and rest[0] == "namespaces":
            resource = self.registry.find(group, version, rest[2])
            if resource is not None and resource.namespaced:
                if len(rest) > 5:
                    raise errors.no_such_path()
                name, sub = (rest[3] if len(rest) > 3 else ""), (rest[4] if len(rest) > 4 else "")
                return Target(resource, rest[1], name, sub)
        resource = self.registry.find(group, version, rest[0])
        if resource is None or len(rest) > 3 or (resource.namespaced and len(rest) > 1):
            raise errors.no_such_path()
        return Target(resource, "", rest[1] if len(rest) > 1 else "", rest[2] if len(rest) > 2 else "")

    # --- verbs ------------------------------------------------------------------------------------------------------

    def _serve(self, request: Request, target: Target) -> Answer:
        resource = target.resource
        if target.subresource:
            return self._serve_subresource(request, target)
        method = request.method
        if not target.name:
            if method in {"GET", "HEAD"}:
                return self._watch(request, target) if request.flag("watch") else self._list(request, target)
            if method == "POST" and (target.namespace or not resource.namespaced):
                options = self._options(request)
                obj = self.writer.create(resource, target.namespace, request.document(), options)
                return self._object(request, resource, obj, 201, options)
            if method == "DELETE":
                return self._delete_collection(request, target)
            raise errors.method_not_allowed()
        if method in {"GET", "HEAD"}:
            if request.flag("watch"):
                request.query["fieldSelector"] = f"metadata.name={target.name}"
                return self._watch(request, target)
            entry = self.writer.find(resource, target.namespace, target.name)
            form = http.negotiate(request.headers.get(b"accept", b""))
            if form.as_kind or form.yaml:
                return self._object(request, resource, self.writer.load(resource, entry), 200, None)
            return Answer(200, self._encoder(resource)(entry))
        if method == "PUT":
            options = self._options(request)
            obj = self.writer.update(resource, target.namespace, target.name, request.document(), "", options)
            return self._object(request, resource, obj, 200, options)
        if method == "PATCH":
            return self._patch(request, target, "")
        if method == "DELETE":
            deletion = self._deletion(request)
            obj = self.writer.delete(resource, target.namespace, target.name, deletion)
            return http.json_answer(obj)
        raise errors.method_not_allowed()

    def _serve_subresource(self, request: Request, target: Target) -> Answer:
        resource, method, sub = target.resource, request.method, target.subresource
        if sub == "status" and resource.has_status:
            if method in {"GET", "HEAD"}:
                entry = self.writer.find(resource, target.namespace, target.name)
                return self._object(request, resource, self.writer.load(resource, entry), 200, None)
            if method == "PUT":
                options = self._options(request)
                body = request.document()
                obj = self.writer.update(resource, target.namespace, target.name, body, "status", options)
                return self._object(request, resource, obj, 200, options)
            if method == "PATCH":
                return self._patch(request, target, "status")
            raise errors.method_not_allowed()
        if sub == "scale" and resource.has_scale:
            return self._scale(request, target)
        if sub == "finalize" and resource.storage == "namespaces":
            if method != "PUT":
                raise errors.method_not_allowed()
            return http.json_answer(self.writer.finalize_namespace(target.name, request.document()))
        if sub == "token" and resource.storage == "serviceaccounts":
            if method != "POST":
                raise errors.method_not_allowed()
            account = self.writer.find(resource, target.namespace, target.name)
            body = request.document(or_empty=True)
            answer = reviews.request_token(body, target.namespace, target.name, account.uid, self.tokens)
            return http.json_answer(answer, 201)
        if sub == "log" and resource.storage == "pods":
            self._only_get(request)
            self.writer.find(resource, target.namespace, target.name)
            text = b"This development cluster runs no containers, so there is no log.\n"
            return Answer(200, text, b"text/plain")
        raise errors.no_such_path()

    def _scale(self, request: Request, target: Target) -> Answer:
        resource = target.resource
        obj = self.writer.load(resource, self.writer.find(resource, target.namespace, target.name))
        scale = reviews.scale_of(obj)
        if request.method in {"GET", "HEAD"}:
            return http.json_answer(scale)
        if request.method == "PUT":
            wanted = request.document()
        elif request.method == "PATCH":
            patch = http.parse_yaml(request.body)
            wanted = (patches.json_patch if isinstance(patch, list) else patches.merge_patch)(scale, patch)
        else:
            raise errors.method_not_allowed()
        if not isinstance(wanted, dict) or not isinstance(wanted.get("spec", {}), dict):
            raise errors.bad_request("Scale cannot be handled: not an object")
        version = (wanted.get("metadata") or {}).get("resourceVersion")
        if version and version != obj["metadata"]["resourceVersion"]:
            raise errors.conflict(resource.group, resource.plural, target.name, errors.MODIFIED)
        patch = {"spec": {"replicas": wanted.get("spec", {}).get("replicas", 0)}}
        options = self._options(request)
        new = self.writer.patch(resource, target.namespace, target.name, patch, "merge", "", options)
        return http.json_answer(reviews.scale_of(new))

    def _patch(self, request: Request, target: Target, subresource: str) -> Answer:
        resource = target.resource
        how = _PATCHES.get(request.content_type)
        if how is None or (how == "strategic" and resource.custom):
            accepted = [kind for kind, name in _PATCHES.items() if name != "strategic" or not resource.custom]
            raise http.unsupported_media(accepted)
        options = self._options(request)
        where = (resource, target.namespace, target.name)
        if how == "apply":
            if not request.query.get("fieldManager"):
                cause = errors.Cause(
                    "FieldValueRequired", "fieldManager", "Required value: is required for apply patch"
                )
                raise errors.invalid("meta.k8s.io", "PatchOptions", "", [cause])
            obj, created = self.writer.apply(*where, http.parse_yaml(request.body), subresource, options)
            return self._object(request, resource, obj, 201 if created else 200, options)
        patch = http.parse_json(request.body)
        return self._object(
            request, resource, self.writer.patch(*where, patch, how, subresource, options), 200, options
        )

    def _options(self, request: Request) -> Options:
        dry_run = request.query.get("dryRun", "")
        if dry_run not in {"", "All"}:
            cause = errors.Cause(
                "FieldValueNotSupported", "dryRun", f'Unsupported value: "{dry_run}": supported values: "All"'
            )
            raise errors.invalid("meta.k8s.io", "CreateOptions", "", [cause])
        validation = request.query.get("fieldValidation") or "Warn"
        if validation not in {"Strict", "Warn", "Ignore"}:
            message = f'Unsupported value: "{validation}": supported values: "Ignore", "Strict", "Warn"'
            cause = errors.Cause("FieldValueNotSupported", "fieldValidation", message)
            raise errors.invalid("meta.k8s.io", "CreateOptions", "", [cause])
        manager = request.query.get("fieldManager")
        if not manager:
            agent = request.headers.get(b"user-agent", b"").decode("latin-1")
            manager = agent.partition("/")[0][:128] or "unknown"
        elif len(manager) > 128:
            cause = errors.Cause("FieldValueTooLong", "fieldManager", "Too long: may not be more than 128 bytes")
            raise errors.invalid("meta.k8s.io", "PatchOptions", "", [cause])
        return Options(bool(dry_run), manager, validation, request.flag("force"))

    def _deletion(self, request: Request) -> Deletion:
        body = request.document(or_empty=True)
        if not isinstance(body, dict):
            raise errors.bad_request("DeleteOptions cannot be handled: not an object")
        conditions = body.get("preconditions") or {}
        policy = body.get("propagationPolicy") or request.query.get("propagationPolicy") or ""
        orphan = body.get("orphanDependents")
        if not policy and (orphan is True or request.flag("orphanDependents")):
            policy = "Orphan"
        if policy not in {"", "Background", "Foreground", "Orphan"}:
            message = f'Unsupported value: "{policy}": supported values: "Background", "Foreground", "Orphan"'
            cause = errors.Cause("FieldValueNotSupported", "propagationPolicy", message)
            raise errors.invalid("meta.k8s.io", "DeleteOptions", "", [cause])
        dry_run = bool(body.get("dryRun")) or request.query.get("dryRun") == "All"
        return Deletion(conditions.get("uid"), conditions.get("resourceVersion"), policy, dry_run)

    # --- reading ----------------------------------------------------------------------------------------------------

    def _encoder(self, resource: Resource) -> Encoder:
        """How a stored object is written for this resource: nearly always just as it is stored."""
        if not resource.many_versions and not resource.defined_rv:
            return lambda entry: entry.raw

        def encode(entry: Entry) -> bytes:
            if entry.rv > resource.defined_rv and not resource.many_versions:
                return entry.raw
            return orjson.dumps(self.writer.load(resource, entry))

        return encode

    def _object(self, request: Request, resource: Resource, obj: Object, code: int, options: Options | None) -> Answer:
        form = http.negotiate(request.headers.get(b"accept", b""))
        answer = Answer(code, content_type=form.content_type)
        if form.as_kind == "Table":
            include = request.query.get("includeObject", "Metadata")
            version = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
            answer.body = orjson.dumps(table.table(resource, [table.row(resource, obj, include)], version))
        elif form.as_kind.startswith("PartialObjectMetadata"):
            answer.body = orjson.dumps(table.partial(obj))
        elif form.yaml:
            answer.body = yaml.safe_dump(obj, sort_keys=False, allow_unicode=True).encode()
        else:
            answer.body = orjson.dumps(obj)
        for warning in options.warnings if options else ():
            text = quote(warning.replace("\\", "\\\\").replace('"', '\\"'), safe=" !#$&'()*+,-./:;<=>?@[\\]^_`{|}~\"")
            answer.headers.append((b"warning", f'299 - "{text}"'.encode()))
        return answer

    def _selection(self, request: Request, resource: Resource) -> Selection:
        labels = label_selector(request.query.get("labelSelector", ""))
        fields = field_selector(request.query.get("fieldSelector", ""), resource.selects)
        return Selection(labels, fields)

    def _list(self, request: Request, target: Target) -> Answer:
        resource, query = target.resource, request.query
        selection = self._selection(request, resource)
        shelf = self.store.shelf(resource.storage)
        namespace = target.namespace or None
        limit = request.number("limit") or 0
        rv, after, left = self.store.rv, None, None
        if query.get("continue"):
            rv, after, left = self._continue(query["continue"], shelf)
        elif query.get("resourceVersionMatch") == "Exact" and (wanted := request.number("resourceVersion")):
            rv = wanted
            if rv < shelf.floor and rv != self.store.rv:
                raise errors.gone(f"The provided resource version is too old: {rv}")
        asked = request.number("resourceVersion") or 0
        if max(rv, asked) > self.store.rv:
            message = f"Too large resource version: {max(rv, asked)}, current: {self.store.rv}"
            details = {
                "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
                "retryAfterSeconds": 1,
            }
            raise StatusError(504, "Timeout", message, details)
        chosen: list[Entry] = []
        more: Key | None = None
        entries = shelf.slice(namespace, after) if rv == self.store.rv else shelf.slice_at(rv, namespace, after)
        for entry in entries:
            if not selection.everything and not selection.holds(entry):
                continue
            if limit and len(chosen) == limit:
                more = chosen[-1].key
                break
            chosen.append(entry)
        metadata: Object = {"resourceVersion": str(rv)}
        if more is not None:
            if left is None and selection.everything:
                left = sum(1 for _ in shelf.slice(namespace, None)) if namespace else len(shelf.keys)
            if left is not None:
                left -= len(chosen)
                if left > 0:
                    metadata["remainingItemCount"] = left
            token = orjson.dumps([rv, more[0], more[1], left])
            metadata["continue"] = base64.urlsafe_b64encode(token).decode().rstrip("=")
        return self._render_list(request, resource, chosen, metadata)

    def _continue(self, text: str, shelf: Shelf) -> tuple[int, Key, int | None]:
        try:
            rv, namespace, name, left = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            after = (str(namespace), str(name))
            rv = int(rv)
        except (ValueError, TypeError):
            raise errors.bad_request("continue key is not valid") from None
        if rv < shelf.floor:
            raise errors.gone(
                "The provided continue parameter is too old to display a consistent list result. You can start a new"
                " list without the continue parameter."
            )
        return rv, after, left if isinstance(left, int) else None

    def _render_list(self, request: Request, resource: Resource, chosen: list[Entry], metadata: Object) -> Answer:
        form = http.negotiate(request.headers.get(b"accept", b""))
        if form.as_kind == "Table":
            include = request.query.get("includeObject", "Metadata")
            rows = [table.row(resource, self.writer.load(resource, entry), include) for entry in chosen]
            return http.json_answer(table.table(resource, rows, metadata))
        if form.as_kind.startswith("PartialObjectMetadata"):
            items = [table.partial(self.writer.load(resource, entry)) for entry in chosen]
            kind = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
            return http.json_answer({**kind, "metadata": metadata, "items": items})
        encode = self._encoder(resource)
        head = {"kind": resource.list_kind, "apiVersion": resource.api_version, "metadata": metadata}
        opening = orjson.dumps(head)[:-1] + b',"items":['
        body = opening + b",".join([encode(entry) for entry in chosen]) + b"]}"
        if form.yaml:
            body = yaml.safe_dump(orjson.loads(body), sort_keys=False, allow_unicode=True).encode()
        return Answer(200, body, form.content_type)

    def _watch(self, request: Request, target: Target) -> Answer:
        resource = target.resource
        selection = self._selection(request, resource)
        version = request.number("resourceVersion")
        initial = request.flag("sendInitialEvents")
        bookmarks = request.flag("allowWatchBookmarks")
        form = http.negotiate(request.headers.get(b"accept", b""))
        shelf = self.store.shelf(resource.storage)
        watch = Watch(
            resource,
            shelf,
            target.namespace or None,
            selection,
            self._watch_encoder(request, form, resource),
            lambda: self.store.rv,
        )
        try:
            watch.start(version, send_initial=initial or not version, bookmark_initial=initial and bookmarks)
        except StatusError as exc:
            event = orjson.dumps({"type": "ERROR", "object": exc.body()}) + b"\n"
            return Answer(200, event)
        timeout = min(float(request.number("timeoutSeconds") or DEFAULT_WATCH_SECONDS), MAX_WATCH_SECONDS)
        return Answer(200, stream=self._follow(watch, timeout, bookmarks), stop=watch.watcher.stop)

    async def _follow(self, watch: Watch, timeout: float, bookmarks: bool) -> AsyncGenerator[bytes, None]:
        self.watches.add(watch)
        try:
            async for chunk in watch.chunks(timeout, bookmarks=bookmarks):
                yield chunk
        finally:
            watch.close()
            self.watches.discard(watch)

    def _watch_encoder(self, request: Request, form: Format, resource: Resource) -> Encoder:
        if form.as_kind == "Table":
            include = request.query.get("includeObject", "Metadata")

            def as_table(entry: Entry) -> bytes:
                obj = self.writer.load(resource, entry)
                version = {"resourceVersion": str(entry.rv)}
                return orjson.dumps(table.table(resource, [table.row(resource, obj, include)], version))

            return as_table
        if form.as_kind.startswith("PartialObjectMetadata"):
            return lambda entry: orjson.dumps(table.partial(self.writer.load(resource, entry)))
        return self._encoder(resource)

    def _delete_collection(self, request: Request, target: Target) -> Answer:
        resource = target.resource
        if resource.namespaced and not target.namespace:
            raise errors.method_not_allowed()
        selection = self._selection(request, resource)
        deletion = self._deletion(request)
        shelf = self.store.shelf(resource.storage)
        chosen = [entry for entry in shelf.slice(target.namespace or None, None) if selection.holds(entry)]
        for entry in chosen:
            self.writer.delete(resource, entry.namespace, entry.name, deletion)
        return self._render_list(request, resource, chosen, {"resourceVersion": str(self.store.rv)})
