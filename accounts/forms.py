"""The forms of sign-in, sign-up and the settings page. They check what was typed; `services` does the rest."""

from __future__ import annotations

from typing import Any

from allauth.account import forms as allauth_forms
from allauth.mfa.base import forms as mfa_forms
from allauth.mfa.totp import forms as totp_forms
from django import forms

from accounts.models import User
from config.app_settings import get_settings

RULES_IN_SHORT = "At least 8 characters; not a common password, and not only digits."


class PlainFieldsMixin:
    """Fields with a label need no placeholder that says the same."""

    fields: dict[str, forms.Field]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"label_suffix": ""} | kwargs)
        for name, field in self.fields.items():
            field.widget.attrs.pop("placeholder", None)
            if name == "password1":
                field.help_text = RULES_IN_SHORT


class LoginForm(PlainFieldsMixin, allauth_forms.LoginForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        login = self.fields["login"]
        login.label = "User name or e-mail"
        login.widget.attrs |= {"autocomplete": "username", "autocapitalize": "none", "autofocus": True}
        self.fields["password"].help_text = ""

    @property
    def offers_signup(self) -> bool:
        return get_settings().signup != "closed"


class SignupForm(PlainFieldsMixin, allauth_forms.SignupForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["username"].label = "User name"
        self.fields["email"].label = "E-mail"

    @property
    def needs_approval(self) -> bool:
        return get_settings().signup == "approval"


class ChangePasswordForm(PlainFieldsMixin, allauth_forms.ChangePasswordForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["oldpassword"].help_text = ""


class ResetPasswordForm(PlainFieldsMixin, allauth_forms.ResetPasswordForm):
    pass


class ResetPasswordKeyForm(PlainFieldsMixin, allauth_forms.ResetPasswordKeyForm):
    pass


class ReauthenticateForm(PlainFieldsMixin, allauth_forms.ReauthenticateForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["password"].help_text = ""


class AuthenticateForm(PlainFieldsMixin, mfa_forms.AuthenticateForm):
    pass


class ReauthenticateWithCodeForm(PlainFieldsMixin, mfa_forms.ReauthenticateForm):
    pass


class ActivateTotpForm(PlainFieldsMixin, totp_forms.ActivateTOTPForm):
    pass


class ProfileForm(PlainFieldsMixin, forms.Form):
    name = forms.CharField(
        max_length=150,
        required=False,
        widget=forms.TextInput(attrs={"autocomplete": "name"}),
        help_text="How you are shown. Empty: your user name.",
    )
    theme = forms.ChoiceField(choices=User.Theme.choices)

    def __init__(self, *args: Any, model_choices: list[tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["default_model"] = forms.ChoiceField(
            choices=model_choices,
            required=False,
            label="Model for new conversations",
            help_text="You can still pick another in each conversation.",
        )


class NewKeyForm(PlainFieldsMixin, forms.Form):
    name = forms.CharField(
        max_length=100, label="What will use this key?", widget=forms.TextInput(attrs={"autocomplete": "off"})
    )
