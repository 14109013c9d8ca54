"""Celery beat's scheduler: schedules in the database, with a sign of life."""

from __future__ import annotations

from django_celery_beat.schedulers import DatabaseScheduler

from config.heartbeats import INTERVAL_SECONDS, heartbeat_key, write_heartbeat


class HeartbeatScheduler(DatabaseScheduler):
    def tick(self, *args: object, **kwargs: object) -> float:
        """The seconds to sleep: never longer than until the next heartbeat."""
        write_heartbeat(heartbeat_key("beat"))
        return min(super().tick(*args, **kwargs), INTERVAL_SECONDS)
