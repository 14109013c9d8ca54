"""A person's own part in training, under `/settings/contributions/`."""

from django.urls import path

from finetuning.pages.contributions import contributions

urlpatterns = [path("", contributions, name="contributions")]
