"""Rows of before get the numbers that now outlive the versions."""

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import F, Max, OuterRef, Subquery
from django.db.models.functions import Coalesce


def fill_numbers(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    version = apps.get_model("models_hub", "ModelVersion")
    events = apps.get_model("models_hub", "AliasEvent").objects
    for end in ("from", "to"):
        number = version.objects.filter(pk=OuterRef(f"{end}_version")).values("number")
        events.update(**{f"{end}_number": Coalesce(Subquery(number), F(f"{end}_number"))})
    highest = version.objects.filter(model=OuterRef("pk")).order_by().values("model").annotate(top=Max("number"))
    models = apps.get_model("models_hub", "RegisteredModel").objects
    models.update(newest_number=Coalesce(Subquery(highest.values("top")), 0))


class Migration(migrations.Migration):
    dependencies = [("models_hub", "0003_version_numbers_kept")]

    operations = [migrations.RunPython(fill_numbers, migrations.RunPython.noop)]
