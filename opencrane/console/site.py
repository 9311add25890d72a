"""The admin site that pages register with: who may enter, navigation, and where objects of a kind are shown."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.core.exceptions import ValidationError
from django.http import Http404, HttpRequest, HttpResponseBase, HttpResponsePermanentRedirect, HttpResponseRedirect
from django.urls import NoReverseMatch, Resolver404, URLPattern, URLResolver, path, resolve, reverse
from unfold.forms import AuthenticationForm
from unfold.sites import UnfoldAdminSite

from opencrane.console.access import READ, may
from opencrane.console.plain import plain_page

RESOURCE = "console"
OIDC_LOGIN = "/api/v1/auth/login"


class SignInForm(AuthenticationForm):
    """User name and password of someone whose role may see the console."""

    def confirm_login_allowed(self, user: Any) -> None:
        if not may(user, RESOURCE, READ):
            raise ValidationError(
                "This account may not use the console. Ask an administrator for the role viewer, operator or admin.",
                code="no_console",
            )


@dataclass(frozen=True, slots=True)
class NavigationItem:
    """One line of the sidebar."""

    group: str
    title: str
    icon: str
    url_name: str
    resource: str
    position: int
    badge: Callable[[], int] | None
    badge_means: str


class ConsoleSite(UnfoldAdminSite):
    """Pages come from `add_page`, which the apps' `admin.py` call; models only where a plain form will do."""

    site_title = site_header = "OpenCrane"
    enable_nav_sidebar = True

    def __init__(self, name: str = "admin") -> None:
        super().__init__(name)
        self.login_form = SignInForm
        self.login_template = "console/login.html"
        self._routes: list[tuple[str, Any, str]] = []
        self._navigation: list[NavigationItem] = []
        self._objects: dict[str, str] = {}
        self._home: Callable[..., HttpResponseBase] | None = None
        self._onward: Callable[[HttpRequest], str] | None = None

    # -- signing in ---------------------------------------------------------------------------------------------------

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """The login page; with a way to the OpenID provider, when there is one, and from there to where one wanted."""
        wanted = request.POST.get(REDIRECT_FIELD_NAME) or request.GET.get(REDIRECT_FIELD_NAME) or reverse("admin:index")
        oidc_url = f"{OIDC_LOGIN}?{urlencode({'returnTo': wanted})}" if settings.OIDC_ISSUER else ""
        return super().login(request, {"oidc_url": oidc_url, **(extra_context or {})})

    def logout(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Sign out; and where the session came from elsewhere, on to where that one ends."""
        onward = self._onward(request) if self._onward is not None else ""
        response = super().logout(request, extra_context)
        if not onward or request.user.is_authenticated:
            return response
        # No redirect: the form that got us here may lead nowhere else, not even by a redirect (CSP form-action).
        return plain_page(request, "console/signed_out.html", {"onward": onward})

    def on_sign_out(self, onward: Callable[[HttpRequest], str]) -> None:
        """`onward` says where the browser goes after it has signed out; empty when nowhere."""
        self._onward = onward

    # -- registering --------------------------------------------------------------------------------------------------

    def add_page(self, route: str, view: Any, name: str) -> None:
        """Serve a view under /admin/ to those who may enter; `name` is reversed as `admin:<name>`."""
        self._routes.append((route, view, name))

    def add_home(self, view: Callable[..., HttpResponseBase]) -> None:
        """The page at /admin/ itself."""
        self._home = view

    def add_navigation(
        self,
        group: str,
        title: str,
        icon: str,
        url_name: str,
        *,
        resource: str,
        position: int = 100,
        badge: Callable[[], int] | None = None,
        badge_means: str = "",
    ) -> None:
        """A line in the sidebar for those who may read `resource`. Groups and lines are sorted by position.

        Args:
            badge: how many things there wait for somebody, asked on every page and so has to be cheap; 0 shows nothing.
            badge_means: what they are, in the plural.
        """
        item = NavigationItem(group, title, icon, url_name, resource, position, badge, badge_means)
        self._navigation.append(item)

    def add_object_page(self, kind: str, url_name: str) -> None:
        """Objects of a kind have a page, reversed with their name."""
        self._objects[kind] = url_name

    def object_url(self, kind: str, name: str) -> str:
        """Where an object is shown, or empty when its kind has no page."""
        url_name = self._objects.get(kind)
        try:
            return reverse(url_name, args=[name]) if url_name else ""
        except NoReverseMatch:
            return ""

    # -- what Django's site asks --------------------------------------------------------------------------------------

    def has_permission(self, request: HttpRequest) -> bool:
        return may(request.user, RESOURCE, READ)

    def get_urls(self) -> list[URLPattern | URLResolver]:
        pages = [path(route, self.admin_view(view), name=name) for route, view, name in self._routes]
        return [*pages, *super().get_urls()]

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        if self._home is None:
            return super().index(request, extra_context)
        return self._home(request)

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        # The sidebar lists pages, not models; Django's own list would ask for permissions we do not use.
        return []

    def get_sidebar_list(self, request: HttpRequest) -> list[dict[str, Any]]:
        groups: dict[str, list[dict[str, Any]]] = {}
        for item in sorted(self._navigation, key=lambda each: each.position):
            link = reverse(item.url_name)
            has_permission = may(request.user, item.resource, READ)
            is_home = item.url_name == f"{self.name}:index"
            line = {
                "title": item.title,
                "icon": item.icon,
                "link": link,
                "active": request.path == link if is_home else request.path.startswith(link),
                "has_permission": has_permission,
                "badge": item.badge() if item.badge and has_permission else 0,
                "badge_means": item.badge_means,
            }
            groups.setdefault(item.group, []).append(line)
        return [{"title": title, "items": items} for title, items in groups.items()]

    def app_index(
        self, request: HttpRequest, app_label: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponseRedirect:
        """Apps have no pages; the skin's breadcrumbs, which lead to them, go on to the app's first model."""
        model = next(model for model in self._registry if model._meta.app_label == app_label)
        return HttpResponseRedirect(reverse(f"{self.name}:{app_label}_{model._meta.model_name}_changelist"))

    def catch_all_view(self, request: HttpRequest, url: str) -> HttpResponseBase:
        """/admin/tenants goes to /admin/tenants/; the rest of the site does without such redirects."""
        if not url.endswith("/"):
            target = f"{request.path_info}/"
            try:
                match = resolve(target)
            except Resolver404 as exc:
                raise Http404 from exc
            if getattr(match.func, "should_append_slash", True):
                query = request.META.get("QUERY_STRING", "")
                return HttpResponsePermanentRedirect(f"{target}?{query}" if query else target)
        raise Http404
