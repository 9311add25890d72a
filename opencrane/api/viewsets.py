"""The base of all API views: DRF's viewset with the parts taken out that cost time and that we answer ourselves."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NoReturn, TypeVar, cast

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.functional import cached_property
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.viewsets import GenericViewSet

from opencrane import limits
from opencrane.actor import Actor
from opencrane.api.bodies import BODY_LIMIT, read_json
from opencrane.api.errors import NotAcceptableError
from opencrane.api.identity import actor_of, caller_of
from opencrane.api.responses import no_content

S = TypeVar("S", bound="serializers.BaseSerializer[Any]")


class ApiRequest(Request):
    """A DRF request whose body is read by us: bounded, chunked or not, strict JSON. No body gives None."""

    body_limit = BODY_LIMIT

    def _load_data_and_files(self) -> None:
        data = read_json(self._request, self.body_limit)
        self._data: Any = data
        self._full_data: Any = data
        self._files: Any = {}


class ApiViewSet(GenericViewSet[Any]):
    """Base viewset: authenticates, asks the role table, and answers with plain HttpResponses.

    Attributes:
        resource: the row of the role table in accounts/permissions.py, for example `tenants`. Required.
        public: whether callers without credentials may come in; a bad credential is refused all the same.
        body_limit: bytes of request body.
        failures: for the OpenAPI document, action -> statuses beyond those that every such operation has, for example
            `{"create": ("409", "422", "502", "504")}`.
    """

    resource: ClassVar[str] = ""
    public: ClassVar[bool] = False
    body_limit: ClassVar[int] = BODY_LIMIT
    failures: ClassVar[Mapping[str, Sequence[str]]] = {}
    pagination_class = None
    filter_backends = ()
    http_method_names = ["get", "post", "put", "delete", "head", "options"]
    # Media types that the view can answer with.
    produces: ClassVar[tuple[str, ...]] = ("application/json",)

    request: ApiRequest

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> ApiRequest:
        # Request objects with parsers and negotiator are of no use here: read_json and check_accept do their work.
        wrapped = ApiRequest(request, authenticators=self._authenticators)
        wrapped.body_limit = self.body_limit
        return wrapped

    @cached_property
    def _authenticators(self) -> list[Any]:
        return _instances(tuple(self.authentication_classes))

    @cached_property
    def _permissions(self) -> list[Any]:
        return _instances(tuple(cast("Sequence[type[Any]]", self.permission_classes)))

    def get_permissions(self) -> list[Any]:
        return self._permissions

    @property
    def default_response_headers(self) -> dict[str, str]:
        # Nothing varies by Accept, and Allow belongs to 405 and OPTIONS.
        return {}

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        check_accept(request, self.produces)
        self.perform_authentication(request)
        if settings.RATE_LIMIT:
            caller = caller_of(request)
            if caller is not None:
                limits.hit(limits.CREDENTIAL, caller.credential)
        self.check_permissions(request)

    def get_authenticate_header(self, request: Request) -> str:
        return "Bearer"

    def raise_uncaught_exception(self, exc: Exception) -> NoReturn:
        raise exc

    def options(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponse:  # type: ignore[override]
        response = no_content()
        response["Allow"] = ", ".join(self.allowed_methods)
        return response

    def parsed_body(self, serializer_class: type[S], *, partial: bool = False) -> dict[str, Any]:
        """The request's body as `serializer_class` validates it, in snake_case.

        Args:
            serializer_class: usually a StrictSerializer.
            partial: whether required fields may be absent, as in a PUT that merges.

        Raises:
            ValidationError, MalformedBodyError, …: a 400, 413 or 415 for the caller.
        """
        serializer = serializer_class(data=self.request.data, partial=partial, context={"view": self})
        serializer.is_valid(raise_exception=True)
        return serializer.validated_data

    @property
    def actor(self) -> Actor:
        """Who is calling, for services."""
        return actor_of(self.request)


_made: dict[tuple[type[Any], ...], list[Any]] = {}


def _instances(classes: tuple[type[Any], ...]) -> list[Any]:
    """Authentication and permission classes have no state: one instance serves all requests."""
    found = _made.get(classes)
    if found is None:
        found = _made[classes] = [cls() for cls in classes]
    return found


def check_accept(request: Any, produces: tuple[str, ...] = ("application/json",)) -> None:
    """Refuse a caller that accepts none of what the view can give (RFC 9110, 12.5.1).

    Raises:
        NotAcceptableError: the Accept header excludes all of `produces`.
    """
    header = request.META.get("HTTP_ACCEPT")
    if not header or header == "*/*" or header in produces:
        return
    ranges: dict[str, float] = {}
    for part in header.split(","):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                try:
                    quality = float(value)
                except ValueError:
                    quality = 0.0
        if media:
            ranges[media] = max(quality, ranges.get(media, 0.0))
    for media in produces:
        # The most specific range decides, so that `application/json;q=0, */*` is a no.
        for candidate in (media, media.partition("/")[0] + "/*", "*/*"):
            if candidate in ranges:
                if ranges[candidate] > 0:
                    return
                break
    raise NotAcceptableError(detail=f"Available: {', '.join(produces)}.")
