"""What the engine has to know of a kind of object; each domain app registers its own."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Generic, TypeVar

from cluster.models import Revision, SyncedModel
from cluster.resources import FIELD_MANAGER, MANAGED_BY, ROW_GENERATION, ROW_ID, KubeObject, Resource
from opencrane.actor import Actor

Spec = dict[str, Any]
RowT = TypeVar("RowT", bound=SyncedModel)


class Kind(ABC, Generic[RowT]):
    """A kind of object that is kept both as a row and as a custom resource.

    Attributes:
        name: the Kubernetes kind; also the key of revisions, outcomes and findings.
        attributes: spec field name to model attribute, for every field that is dual-written.
        exists_code: error code for a name that is taken.
    """

    name: ClassVar[str]
    resource: ClassVar[Resource]
    model: type[RowT]
    attributes: ClassVar[Mapping[str, str]]
    exists_code: ClassVar[str]

    # -- rows and specs ---------------------------------------------------------------------------------------------

    @abstractmethod
    def spec(self, row: RowT) -> Spec:
        """The row's intent as a spec; unset fields are absent. Pure."""

    @abstractmethod
    def assign(self, row: RowT, values: Mapping[str, Any]) -> None:
        """Set attributes from spec values; None or a missing attribute clears."""

    @abstractmethod
    def validated(self, name: str, spec: Spec) -> Spec:
        """The part of a resource's spec that a row can hold, for repair.

        Raises:
            ValueError: the API would not accept such an object; the sentence says why.
        """

    def concerns(self, resource: KubeObject) -> bool:
        """Whether a listed resource is one of ours to compare; others count on neither side."""
        return True

    def projected(self, resource: KubeObject) -> dict[str, Any]:
        """Domain columns that the projector copies from the resource's status, beyond `status` itself."""
        return {}

    def deletion_annotations(self, row: RowT) -> dict[str, str]:
        """What the resource has to be annotated with before it is deleted, for controllers to read."""
        return {}

    # -- what the domain does when something ends; inside the engine's transaction -----------------------------------

    def on_rejected(self, row: RowT, revision: Revision, message: str) -> None:
        """The cluster refused `revision` for good; the row is about to lose it (a create: to go)."""

    def on_deleted(self, row: RowT, revision: Revision | None) -> None:
        """The resource is gone and the row is about to be dropped."""

    def on_repaired(self, row: RowT, action: str, before: Spec, after: Spec, actor: Actor) -> None:
        """Repair made or changed the row from the resource."""

    # -- derived ----------------------------------------------------------------------------------------------------

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(self.attributes)

    def manifest(self, row: RowT, spec: Spec, *, uid: str = "", resource_version: str = "") -> KubeObject:
        """The object to apply: `spec` under the row's name, carrying the row's id and generation."""
        metadata: dict[str, Any] = {
            "name": row.name,
            "labels": {MANAGED_BY: FIELD_MANAGER},
            "annotations": {ROW_ID: str(row.pk), ROW_GENERATION: str(row.generation)},
        }
        if uid:
            metadata["uid"] = uid
        if resource_version:
            metadata["resourceVersion"] = resource_version
        return {
            "apiVersion": self.resource.api_version,
            "kind": self.resource.kind,
            "metadata": metadata,
            "spec": spec,
        }


_kinds: dict[str, Kind[Any]] = {}


def register(kind: Kind[Any]) -> None:
    """Make a kind known to the engine; called once per process by the domain app's `ready`."""
    _kinds[kind.name] = kind


def kind_named(name: str) -> Kind[Any]:
    return _kinds[name]


def all_kinds() -> Iterator[Kind[Any]]:
    yield from _kinds.values()


def row_id_of(resource: KubeObject) -> str:
    """The UUID of the row that the resource says it belongs to, or empty."""
    return str((resource["metadata"].get("annotations") or {}).get(ROW_ID, ""))


def present(value: Any) -> Any:
    """A value with nulls dropped at every depth: absent and null are equal. Empty lists and objects stay."""
    if isinstance(value, dict):
        return {key: present(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [present(item) for item in value]
    return value


def same(left: Any, right: Any) -> bool:
    """Equal by value: key order, absent and null do not matter."""
    return left == right or present(left) == present(right)
