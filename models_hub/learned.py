"""What providers were found to refuse, kept so that it is not tried at every reply."""

from __future__ import annotations

from django.db import transaction

from models_hub.models import Connection
from models_hub.targets import ModelTarget


def remember_parameters(target: ModelTarget, learned: dict) -> None:
    """Keep what a provider was found to refuse, beside what other models of the connection taught."""
    with transaction.atomic():
        connection = Connection.objects.select_for_update().filter(pk=target.connection_id).first()
        if connection is not None:
            connection.learned_parameters = {**connection.learned_parameters, target.provider_model: learned}
            connection.save(update_fields=["learned_parameters"])
