"""The forms of the pages of datasets."""

from __future__ import annotations

from typing import Any

from django import forms


class AboutForm(forms.Form):
    name = forms.CharField(max_length=200, widget=forms.TextInput(attrs={"autocomplete": "off"}))
    description = forms.CharField(
        required=False, label="What it is for", widget=forms.Textarea(attrs={"rows": 2}), max_length=5000
    )


class FreezeForm(forms.Form):
    """Shares in percent, as people think of them."""

    validation = forms.IntegerField(
        label="Held out for validation, %", min_value=0, max_value=50, initial=10, help_text="Watched during training."
    )
    test = forms.IntegerField(
        label="Held out for the test, %", min_value=0, max_value=50, initial=0, help_text="Asked once, at the end."
    )
    seed = forms.IntegerField(
        min_value=0, max_value=2**31 - 1, initial=42, help_text="The same seed splits the same rows alike."
    )
    notes = forms.CharField(required=False, max_length=5000, widget=forms.Textarea(attrs={"rows": 2}))

    @property
    def shares(self) -> dict[str, float]:
        chosen = {name: self.cleaned_data[name] / 100 for name in ("validation", "test")}
        return {name: share for name, share in chosen.items() if share}

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if values.get("validation", 0) + values.get("test", 0) > 80:
            raise forms.ValidationError("At least a fifth of the rows must be left to train on.")
        return values
