"""The full-text index over messages; vendor-switched inside."""

from django.db import migrations

from chat.search_index import create_index, drop_index


class Migration(migrations.Migration):
    dependencies = [("chat", "0003_request_receipts_and_claims")]

    operations = [migrations.RunPython(create_index, drop_index)]
