"""Forms that are checked by the API's own serializers: what people fill in, as a body, and its errors at the inputs."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar

from django.http import HttpRequest
from rest_framework import serializers

from opencrane.api.serializers import camelize, flatten_errors
from opencrane.console.pages import complaint, sentence
from opencrane.console.values import parse_object
from opencrane.errors import DomainError

Thing = TypeVar("Thing")


@dataclass(frozen=True, slots=True)
class FormField:
    """One input. A dotted name is a field within an object of the API.

    `lines` are a list of text, `secret` inputs never show what was typed, `checks` are some of the options, `flag` is a
    checkbox. `is_fixed` fields are asked for once, when the object is made.
    """

    name: str
    label: str
    kind: Literal["text", "email", "number", "lines", "object", "select", "secret", "checks", "flag"] = "text"
    help: str = ""
    is_required: bool = False
    options: Sequence[tuple[str, str]] = ()
    is_fixed: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """Inputs under a heading, which may be empty."""

    title: str
    fields: Sequence[FormField]


class ApiForm:
    """What was filled in, and what is wrong with it.

    Attributes:
        sections: its inputs.
        object_max: characters that an input of kind `object` takes.
        taken: the input that a name that is taken is noted at.
        raw: input name to what is in it.
        errors: input name to reasons; `body` for what belongs to none.
    """

    sections: ClassVar[Sequence[Section]]
    object_max: ClassVar[int] = 65_536
    taken: ClassVar[str] = "name"

    def __init__(self, raw: Mapping[str, Any], *, is_new: bool = False) -> None:
        self.raw = {name: _tidy(value) for name, value in raw.items()}
        self.is_new = is_new
        self.errors: dict[str, list[str]] = {}

    @classmethod
    def posted(cls, request: HttpRequest, *, is_new: bool = False) -> Self:
        """The form as it came."""
        form = cls({}, is_new=is_new)
        for field in form.fields:
            if field.kind == "checks":
                form.raw[field.name] = _tidy(request.POST.getlist(field.name))
            elif field.kind == "flag":
                form.raw[field.name] = request.POST.get(field.name) == "on"
            else:
                form.raw[field.name] = _tidy(request.POST.get(field.name, ""))
        return form

    @property
    def fields(self) -> list[FormField]:
        return [each for section in self.sections for each in section.fields if self.is_new or not each.is_fixed]

    def body(self, touched: Collection[str] | None = None) -> dict[str, Any]:
        """The body of a request; what is required is never left out, so that the API can say that it is missing.

        Args:
            touched: inputs to send, each with all others of its object, null for blank ones. None sends all that are
                not blank.
        """
        wholes = {_whole(name) for name in touched or ()}
        found: dict[str, Any] = {}
        for field in self.fields:
            *path, last = field.name.split(".")
            if touched is not None and _whole(field.name) not in wholes:
                continue
            value = self.value(field)
            if value is None or value == "":
                if field.is_required:
                    value = ""
                elif touched is not None:
                    found.setdefault(_whole(field.name), None)
                    continue
                else:
                    continue
            where = found
            for part in path:
                where[part] = where.get(part) or {}
                where = where[part]
            where[last] = value
        return found

    def value(self, field: FormField) -> Any:
        """What an input says to the API; None or empty when it is blank."""
        value = self.raw.get(field.name)
        if not isinstance(value, str) or not value:
            return value
        match field.kind:
            case "lines":
                return lines_of(value)
            case "number":
                return self._number(field.name, value)
            case "object":
                try:
                    return parse_object(value, max_length=self.object_max)
                except ValueError as exc:
                    self.note({field.name: [str(exc)]})
                    return None
        return value

    def checked(self, serializer_class: Any, body: dict[str, Any]) -> dict[str, Any] | None:
        """What the API makes of a body; None when `errors` says why it would refuse."""
        serializer = serializer_class(data=body)
        try:
            serializer.is_valid(raise_exception=True)
        except serializers.ValidationError as exc:
            self.note(flatten_errors(exc.detail))
        return None if self.has_errors else dict(serializer.validated_data)

    def refuse(self, error: DomainError, request: HttpRequest) -> Self:
        """Note a service's refusal at the input it is about, or above all inputs."""
        if error.code.endswith("_EXISTS"):
            self.note({self.taken: [sentence(error)]})
        elif error.fields:
            self.note(error.fields)
            if error.message != error.default_message:
                self.note({"body": [error.message]})
        else:
            self.note({"body": [complaint(request, error)]})
        return self

    def note(self, fields: Mapping[str, Sequence[str]]) -> None:
        """Put reasons at the inputs that their paths lead to: `events.0` belongs to `events`."""
        for path, reasons in fields.items():
            self.errors.setdefault(self.input_for(path), []).extend(reasons)

    def input_for(self, path: str) -> str:
        """The input that shows an error of this path: itself, or the nearest one around it."""
        names = {field.name for field in self.fields}
        while path and path not in names:
            path = path.rpartition(".")[0]
        return path or "body"

    # -- for the template ---------------------------------------------------------------------------------------------

    @property
    def has_errors(self) -> bool:
        return bool(self.errors)

    @property
    def shown(self) -> list[dict[str, Any]]:
        """Sections with their inputs."""
        fields = self.fields
        return [
            {"title": section.title, "inputs": [self.input(each) for each in section.fields if each in fields]}
            for section in self.sections
        ]

    def input(self, field: FormField) -> dict[str, Any]:
        value = "" if field.kind == "secret" else self.raw.get(field.name, "")
        return {"field": field, "value": value, "errors": self.errors.get(field.name, [])}

    def _number(self, name: str, text: str) -> int | float | None:
        try:
            number = Decimal(text)
            if number.is_finite() and abs(number) < Decimal(10) ** 15:
                return int(number) if number == number.to_integral_value() else float(number)
        except InvalidOperation:
            pass
        self.note({name: ["Has to be a number, such as 25 or 12.50."]})
        return None


class ObjectForm(ABC, ApiForm, Generic[Thing]):
    """The form of an object that can be made and changed.

    What was not touched is not named in a change, so that somebody else's change of it stays.

    Attributes:
        creates, updates: the API's serializers.
        is_spec: whether values go by the names that a spec has, and not by those of attributes.
    """

    creates: ClassVar[Any]
    updates: ClassVar[Any]
    is_spec: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def of(cls, thing: Thing) -> Self:
        """The form as it is when nothing has been changed."""

    def created(self) -> dict[str, Any] | None:
        """The checked body of a create; None when `errors` says why not."""
        return self._values(self.checked(self.creates, self.body()))

    def changes(self, thing: Thing) -> dict[str, Any] | None:
        """The checked fields that were touched; None when `errors` says why not."""
        return self._values(self.checked(self.updates, self.body(self.touched(self.of(thing)))))

    def touched(self, before: "ObjectForm[Thing]") -> set[str]:
        """The inputs that are not as they were."""
        names = [field.name for field in self.fields]
        return {name for name in names if (self.raw.get(name) or "") != (before.raw.get(name) or "")}

    def _values(self, values: dict[str, Any] | None) -> dict[str, Any] | None:
        if values is None or not self.is_spec:
            return values
        return {camelize(name): value for name, value in values.items()}


def lines_of(text: str) -> list[str]:
    """Lines that say something."""
    return [line.strip() for line in text.split("\n") if line.strip()]


def _whole(name: str) -> str:
    return name.partition(".")[0]


def _tidy(value: Any) -> Any:
    """Inputs as they compare: browsers send line breaks as CRLF, and options in the order of the page."""
    if isinstance(value, str):
        return value.replace("\r\n", "\n").strip()
    return sorted(value) if isinstance(value, list) else value
