"""Accounts in the console: everyone with a role may see them, administrators may add and change them."""

from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from accounts.models import User
from accounts.oidc import ending
from accounts.services import people
from accounts.views import tokens
from opencrane.api.identity import actor_of
from opencrane.console.access import READ, WRITE, may

VIEWING, CHANGING = "accounts", "roles"

if admin.site.is_registered(Group):
    admin.site.unregister(Group)


@admin.register(User)
class PersonAdmin(UserAdmin[User], ModelAdmin):
    """People and their roles. Accounts are switched off rather than deleted: the audit trail speaks of them."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = (
        "username",
        "email",
        "full_name",
        "role",
        "role_comes_from",
        "signs_in_by",
        "is_active",
        "last_login",
    )
    list_filter = ("role", "is_active")
    search_fields = ("username", "email", "first_name", "last_name")
    ordering = ("username",)
    filter_horizontal: ClassVar[tuple[str, ...]] = ()
    actions = None
    readonly_fields = ("last_login", "date_joined", "signs_in_by", "oidc_issuer", "oidc_subject")
    fieldsets = (
        (None, {"fields": ("username", "password", "email", "first_name", "last_name")}),
        ("Access", {"fields": ("role", "role_pinned", "is_active")}),
        ("Sign-in", {"fields": ("signs_in_by", "oidc_issuer", "oidc_subject", "last_login", "date_joined")}),
    )
    add_fieldsets = ((None, {"fields": ("username", "email", "role", "usable_password", "password1", "password2")}),)

    @admin.display(description="Name")
    def full_name(self, person: User) -> str:
        return person.get_full_name()

    @admin.display(description="Role comes from")
    def role_comes_from(self, person: User) -> str:
        return "groups and address" if person.oidc_subject and not person.role_pinned else "an administrator"

    @admin.display(description="Signs in by")
    def signs_in_by(self, person: User) -> str:
        if person.oidc_subject:
            return "OpenID Connect"
        return "password" if person.has_usable_password() else "OpenID Connect, not yet"

    def has_module_permission(self, request: HttpRequest) -> bool:
        return may(request.user, VIEWING, READ)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may(request.user, VIEWING, READ)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return may(request.user, CHANGING, WRITE)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may(request.user, CHANGING, WRITE)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        # Nobody takes away their own role, so that an administrator always remains.
        own = ("role", "role_pinned", "is_active") if obj is not None and obj.pk == request.user.pk else ()
        return (*super().get_readonly_fields(request, obj), *own)

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        # A role that somebody chose is meant to stay, unless they say otherwise in the same form.
        if "role_pinned" not in form.changed_data and (not change or "role" in form.changed_data):
            obj.role_pinned = True
        people.save_user(user=obj, actor=actor_of(request))

    # The audit trail has it already; Django's own log is not shown anywhere.
    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        return None

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        if "password" in str(message).lower():
            people.note_password_change(user=obj, actor=actor_of(request))


_site: Any = admin.site
_site.on_sign_out(ending.end_session_url)
_site.add_navigation(
    "Administration", "People", "person", "admin:accounts_user_changelist", resource=VIEWING, position=90
)
tokens.register()
