"""The admin's pages about people, with the approval queue first, and about API keys."""

from __future__ import annotations

from typing import Any

from allauth.account import views as account_views
from allauth.account.decorators import secure_admin_login
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from django.contrib import admin, messages
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.db.models import Case, Q, QuerySet, Value, When
from django.db.models.expressions import OrderBy
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.views.generic import RedirectView
from unfold.admin import ModelAdmin
from unfold.decorators import display
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from accounts import services
from accounts.models import ApiKey, User
from chat.errors import InvalidError

# The admin's own sign-in page knows neither the second factor nor the rate limits: allauth's page stands in its place.
admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]
# Nor do its pages to sign out and to change one's password end the sockets that were open.
admin.site.logout = account_views.logout  # type: ignore[method-assign]
admin.site.password_change = RedirectView.as_view(  # type: ignore[method-assign, assignment]
    pattern_name="account_change_password"
)
admin.site.unregister(Group)
# Whoever changed these by hand would go round `services`; the second factor's secret is nobody's business.
for hidden in (EmailAddress, Authenticator, UserSession):
    admin.site.unregister(hidden)


class OnlyAdmins:
    """Who may change people could make himself an admin: so only admins may."""

    def has_module_permission(self, request: HttpRequest) -> bool:
        return request.user.is_superuser

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.is_superuser

    has_add_permission = has_module_permission
    has_change_permission = has_delete_permission = has_view_permission


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"
    queries = {
        "waiting": Q(is_active=False, approved_at=None),
        "active": Q(is_active=True),
        "suspended": Q(is_active=False, approved_at__isnull=False),
    }

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
        return [("waiting", "Waiting for approval"), ("active", "Active"), ("suspended", "Suspended")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[User]) -> QuerySet[User]:
        return queryset.filter(self.queries.get(self.value() or "", Q()))


class PersonForm(UserChangeForm):
    class Meta(UserChangeForm.Meta):
        labels = {"first_name": "Name", "is_superuser": "Admin"}
        help_texts = {"is_superuser": "May use these pages.", "groups": "Decide which models the person may use."}

    def clean_email(self) -> str:
        return _free_email(self.cleaned_data["email"], self.instance)

    def clean_is_superuser(self) -> bool:
        if not self.cleaned_data["is_superuser"]:
            try:
                services.require_another_admin(User.objects.get(pk=self.instance.pk))
            except InvalidError as error:
                raise ValidationError(error.message) from None
        return self.cleaned_data["is_superuser"]


class NewPersonForm(UserCreationForm):
    class Meta(UserCreationForm.Meta):
        model = User
        fields = ("username", "email")

    def clean_email(self) -> str:
        return _free_email(self.cleaned_data["email"], self.instance)


def _free_email(email: str, user: User) -> str:
    email = email.strip().lower()
    if User.objects.filter(email__iexact=email).exclude(pk=user.pk).exists():
        raise ValidationError("A user with that e-mail address already exists.")
    return email


@admin.register(User)
class UserAdmin(OnlyAdmins, DjangoUserAdmin, ModelAdmin):
    form, add_form, change_password_form = PersonForm, NewPersonForm, AdminPasswordChangeForm
    list_display = ("username", "email", "shown_name", "state", "is_admin", "date_joined", "last_login")
    list_filter = (StateFilter, "is_superuser", "groups")
    list_per_page = 50
    search_fields = ("username", "email", "first_name", "last_name")
    filter_horizontal = ()
    autocomplete_fields = ("groups",)
    readonly_fields = ("state", "approved_at", "date_joined", "last_login")
    fieldsets = (
        (None, {"fields": ("username", "email", "first_name", "password")}),
        ("Access", {"fields": ("state", "is_superuser", "groups")}),
        ("Dates", {"fields": ("date_joined", "approved_at", "last_login")}),
    )
    add_fieldsets = ((None, {"fields": ("username", "email", "password1", "password2")}),)
    actions = ("approve", "reject", "show_reset_link", "deactivate", "remove_second_factor")

    def get_ordering(self, request: HttpRequest) -> tuple[OrderBy | str, ...]:
        waiting_first = Case(When(StateFilter.queries["waiting"], then=Value(0)), default=Value(1))
        return (waiting_first.asc(), "-date_joined")

    @display(description="state", label={"waiting": "warning", "active": "success", "suspended": "danger"})
    def state(self, user: User) -> str:
        if user.is_active:
            return "active"
        return "waiting" if user.is_waiting else "suspended"

    @display(description="name")
    def shown_name(self, user: User) -> str:
        return user.get_full_name()

    @display(description="admin", boolean=True)
    def is_admin(self, user: User) -> bool:
        return user.is_superuser

    def save_model(self, request: HttpRequest, user: User, form: ModelForm, change: bool) -> None:
        user.is_staff = user.is_superuser
        if not change:
            services.admit(user)
        super().save_model(request, user, form, change)
        if "email" in form.changed_data:
            services.set_sign_in_email(user)

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:
        response = super().user_change_password(request, id, form_url)
        if request.method == "POST" and response.status_code == 302:
            services.end_access(User.objects.get(pk=id))
        return response

    def delete_model(self, request: HttpRequest, user: User) -> None:
        services.delete_user(user)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        for user in queryset:
            services.delete_user(user)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_delete_permission(request, obj) and obj != request.user

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        # Deleting a person deletes his conversations: one at a time, with the page that says so.
        actions = super().get_actions(request)
        actions.pop("delete_selected", None)
        return actions

    @admin.action(description="Approve")
    def approve(self, request: HttpRequest, users: QuerySet[User]) -> None:
        approved = [user.username for user in users if services.approve_user(user)]
        self._report(request, "May sign in now", approved)

    @admin.action(description="Reject (removes people who wait)")
    def reject(self, request: HttpRequest, users: QuerySet[User]) -> None:
        rejected = [user.username for user in users if services.reject_user(user)]
        self._report(request, "Removed", rejected)

    @admin.action(description="Make a link to set a password")
    def show_reset_link(self, request: HttpRequest, users: QuerySet[User]) -> None:
        for user in users:
            link = request.build_absolute_uri(services.make_reset_link(user))
            messages.info(request, f"{user.username} can set a password once, within three days, at {link}")

    @admin.action(description="Suspend")
    def deactivate(self, request: HttpRequest, users: QuerySet[User]) -> None:
        suspended = []
        for user in users:
            try:
                services.deactivate_user(user)
            except InvalidError as error:
                messages.error(request, f"{user.username}: {error.message}")
            else:
                suspended.append(user.username)
        self._report(request, "Suspended", suspended)

    @admin.action(description="Remove the second factor")
    def remove_second_factor(self, request: HttpRequest, users: QuerySet[User]) -> None:
        removed = [user.username for user in users if services.remove_second_factor(user)]
        self._report(request, "Second factor removed", removed)

    @staticmethod
    def _report(request: HttpRequest, what: str, names: list[str]) -> None:
        if names:
            messages.success(request, f"{what}: {', '.join(names)}.")
        else:
            messages.warning(request, "Nothing to do for the people you chose.")


@admin.register(Group)
class GroupAdmin(OnlyAdmins, DjangoGroupAdmin, ModelAdmin):
    fields = ("name",)
    filter_horizontal = ()


@admin.register(ApiKey)
class ApiKeyAdmin(OnlyAdmins, ModelAdmin):
    list_display = ("name", "prefix", "user", "created_at", "last_used_at", "revoked_at")
    list_select_related = ("user",)
    list_filter = (("revoked_at", admin.EmptyFieldListFilter),)
    search_fields = ("name", "prefix", "user__username")
    fields = readonly_fields = ("user", "name", "prefix", "created_at", "last_used_at", "revoked_at")
    actions = ("revoke",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        return False

    @admin.action(description="Revoke")
    def revoke(self, request: HttpRequest, keys: QuerySet[ApiKey]) -> None:
        messages.success(request, f"Revoked: {services.revoke_keys(keys)}.")
