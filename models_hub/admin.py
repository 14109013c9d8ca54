"""The admin's pages about connections, models, their versions and where aliases point. Every rule is in `services`."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import path
from django.utils.decorators import method_decorator
from django.views.decorators.http import require_POST
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminTextInputWidget

from accounts.admin import OnlyAdmins
from chat.errors import InvalidError
from chat.events import parse_options
from models_hub import provider_keys, services
from models_hub.models import Alias, AliasEvent, Connection, ModelVersion, RegisteredModel


class ReadOnly:
    """Rows that are looked at, never edited by hand."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    has_change_permission = has_delete_permission = has_add_permission


class ConnectionForm(forms.ModelForm):
    # Not the model's own field: Django's refuses names without a dot, which is what a server in the same network has.
    address = forms.CharField(
        required=False,
        widget=UnfoldAdminTextInputWidget,
        help_text="Such as https://api.example.com/v1. Empty: OpenAI's own.",
    )
    api_key = forms.CharField(
        required=False,
        label="Key",
        strip=True,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "off"}),
        help_text="Stored encrypted and never shown again. Leave empty to keep the one there is.",
    )
    remove_api_key = forms.BooleanField(required=False, label="Remove the stored key")

    class Meta:
        model = Connection
        fields = ("name", "kind", "is_enabled")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial.setdefault("address", self.instance.base_url)

    def clean_address(self) -> str:
        url = self.cleaned_data["address"].strip().rstrip("/")
        try:
            parts = urlsplit(url)
            is_address = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:  # half an IPv6 address, a port that is none
            is_address = False
        if url and not is_address:
            raise ValidationError("An address starts with http:// or https:// and names a server.")
        return url

    def clean_api_key(self) -> str:
        try:
            provider_keys.set_api_key(Connection(), self.cleaned_data["api_key"])
        except ValueError as error:
            raise ValidationError(str(error)) from None
        return self.cleaned_data["api_key"]


@admin.register(Connection)
class ConnectionAdmin(OnlyAdmins, ModelAdmin):
    form = ConnectionForm
    list_display = ("name", "kind", "base_url", "state", "origin", "last_checked_at")
    list_filter = ("kind", "is_enabled", "from_environment")
    search_fields = ("name", "base_url")
    readonly_fields = ("state", "origin", "last_checked_at", "last_error_message")
    fieldsets = (
        (None, {"fields": ("name", "kind", "address", "is_enabled", "origin")}),
        ("Key", {"fields": ("api_key", "remove_api_key")}),
        ("Last check", {"fields": ("state", "last_checked_at", "last_error_message")}),
    )
    actions = ("test_selected",)
    change_form_outer_before_template = "admin/models_hub/_test_connection.html"

    def has_change_permission(self, request: HttpRequest, obj: Connection | None = None) -> bool:
        is_ours = obj is None or not obj.from_environment
        return super().has_change_permission(request, obj) and is_ours

    def has_delete_permission(self, request: HttpRequest, obj: Connection | None = None) -> bool:
        return self.has_change_permission(request, obj)

    def get_fieldsets(self, request: HttpRequest, obj: Connection | None = None) -> Any:
        if obj is None or not obj.from_environment:
            return self.fieldsets
        # Its key is in the environment, so there is none to enter.
        return [(None, {"fields": ("name", "kind", "base_url", "is_enabled", "origin")}), self.fieldsets[-1]]

    def save_model(self, request: HttpRequest, connection: Connection, form: forms.ModelForm, change: bool) -> None:
        key = form.cleaned_data.get("api_key") or ""
        if key or form.cleaned_data.get("remove_api_key"):
            provider_keys.set_api_key(connection, key)
        connection.base_url = form.cleaned_data["address"]
        connection.save()

    @display(description="state", label={"works": "success", "down": "danger", "off": "warning", "not checked": "info"})
    def state(self, connection: Connection) -> str:
        if not connection.is_enabled:
            return "off"
        if connection.last_checked_at is None:
            return "not checked"
        return "down" if connection.last_error_code else "works"

    @display(description="made in")
    def origin(self, connection: Connection) -> str:
        return "the environment (.env)" if connection.from_environment else "these pages"

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.test)
        return [path("<int:object_id>/test/", view, name="models_hub_connection_test"), *super().get_urls()]

    @method_decorator(require_POST)
    def test(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """The button of the change page. What it finds is kept, so a mere look at a link may not do it."""
        connection = get_object_or_404(Connection, pk=object_id)
        if not self.has_view_permission(request, connection):
            raise PermissionDenied
        self._test(request, connection)
        return redirect("admin:models_hub_connection_change", object_id)

    @action(description="Test the connection", icon="cable", permissions=["view"])
    def test_selected(self, request: HttpRequest, connections: QuerySet[Connection]) -> None:
        for connection in connections:
            self._test(request, connection)

    def _test(self, request: HttpRequest, connection: Connection) -> None:
        error = services.test_connection(connection)
        if error is None:
            messages.success(request, f"{connection.name} answers and takes the key.")
        else:
            messages.error(request, f"{connection.name}: {error.message}{f' ({error.detail})' if error.detail else ''}")


class VersionInline(ReadOnly, TabularInline):
    model = ModelVersion
    extra = 0
    fields = readonly_fields = ("number", "provider_model", "source", "is_ready", "not_ready_reason", "created_at")
    show_change_link = True


class RegisteredModelForm(forms.ModelForm):
    class Meta:
        model = RegisteredModel
        fields = ("default_options",)
        help_texts = {"default_options": 'What its replies start from, such as {"temperature": 0.2, "top_p": 0.9}.'}

    def clean_default_options(self) -> dict[str, Any]:
        try:
            return parse_options(self.cleaned_data["default_options"], "The options")
        except InvalidError as error:
            raise ValidationError(error.message) from None


@admin.register(RegisteredModel)
class RegisteredModelAdmin(OnlyAdmins, ModelAdmin):
    form = RegisteredModelForm
    list_display = ("name", "slug", "task", "connection", "is_enabled", "from_environment")
    list_select_related = ("connection",)
    list_filter = ("task", "connection", "is_enabled")
    search_fields = ("slug", "name")
    autocomplete_fields = ("connection", "fallback", "groups")
    fields = (
        "slug",
        "name",
        "description",
        "task",
        "connection",
        "context_window",
        "default_options",
        "fallback",
        "groups",
        "is_enabled",
    )
    inlines = (VersionInline,)

    def get_readonly_fields(self, request: HttpRequest, obj: RegisteredModel | None = None) -> tuple[str, ...]:
        if obj is None:
            return ()
        # Replies and programs name a model by its slug. What the environment sets, it would set again.
        return ("slug", "task", "connection", "is_enabled") if obj.from_environment else ("slug", "task")

    def get_inlines(self, request: HttpRequest, obj: RegisteredModel | None) -> tuple:
        return self.inlines if obj else ()

    def has_delete_permission(self, request: HttpRequest, obj: RegisteredModel | None = None) -> bool:
        # Replies name the version that wrote them: a model is disabled, not deleted.
        return False


@admin.register(ModelVersion)
class ModelVersionAdmin(OnlyAdmins, ModelAdmin):
    list_display = ("__str__", "provider_model", "is_ready", "created_at", "retired_at")
    list_select_related = ("model",)
    list_filter = ("is_ready", "model")
    search_fields = ("model__slug", "provider_model", "source")
    autocomplete_fields = ("model",)
    fields = ("model", "provider_model", "source", "revision", "context_window", "notes")
    seen = (*fields, "number", "is_ready", "not_ready_reason", "manifest", "created_at", "retired_at")

    def get_fields(self, request: HttpRequest, obj: ModelVersion | None = None) -> tuple[str, ...]:
        return self.seen if obj else self.fields

    def has_change_permission(self, request: HttpRequest, obj: ModelVersion | None = None) -> bool:
        return super().has_change_permission(request, obj) and obj is None  # a version is immutable

    def has_delete_permission(self, request: HttpRequest, obj: ModelVersion | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, version: ModelVersion, form: forms.ModelForm, change: bool) -> None:
        values = {name: form.cleaned_data[name] for name in self.fields if name != "model"}
        made = services.add_version(version.model, **values)
        version.pk, version.number = made.pk, made.number
        version._state.adding = False


class AliasForm(forms.ModelForm):
    reason = forms.CharField(
        max_length=500, widget=UnfoldAdminTextInputWidget, help_text="Kept in the history of the alias."
    )

    class Meta:
        model = Alias
        fields = ("model", "name", "version")

    def clean(self) -> dict[str, Any]:
        super().clean()
        values = self.cleaned_data
        model = self.instance.model if self.instance.pk else values.get("model")
        if model and values.get("version") and values.get("reason"):
            name = self.instance.name if self.instance.pk else values.get("name", "")
            try:
                services.check_move(model, name, values["version"], values["reason"])
            except services.AliasMoveError as error:
                raise ValidationError(str(error)) from None
        return values


@admin.register(Alias)
class AliasAdmin(OnlyAdmins, ModelAdmin):
    form = AliasForm
    list_display = ("__str__", "version", "updated_at")
    list_select_related = ("model", "version__model")
    search_fields = ("model__slug", "name")
    autocomplete_fields = ("model", "version")
    fields = ("model", "name", "version", "reason")

    def get_readonly_fields(self, request: HttpRequest, obj: Alias | None = None) -> tuple[str, ...]:
        return ("model", "name") if obj else ()

    def has_delete_permission(self, request: HttpRequest, obj: Alias | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, alias: Alias, form: forms.ModelForm, change: bool) -> None:
        services.move_alias(
            alias.model, alias.name, alias.version, actor=request.user, reason=form.cleaned_data["reason"]
        )
        saved = Alias.objects.get(model=alias.model, name=alias.name)
        alias.pk, alias.updated_at = saved.pk, saved.updated_at


@admin.register(AliasEvent)
class AliasEventAdmin(ReadOnly, OnlyAdmins, ModelAdmin):
    list_display = ("created_at", "model", "alias", "from_number", "to_number", "actor", "reason")
    list_select_related = ("model", "actor")
    list_filter = ("alias", "model")
    search_fields = ("model__slug", "alias", "reason")
