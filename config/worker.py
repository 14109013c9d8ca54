"""The Celery application as workers and beat run it: with a heartbeat, and with Dialoop's own logging."""

from __future__ import annotations

import warnings
from typing import Any

from celery import bootsteps
from celery.platforms import SecurityWarning
from celery.signals import setup_logging

from config.celery import app
from config.heartbeats import INTERVAL_SECONDS, worker_key, write_heartbeat

# Celery warns root at every start because of pickled messages; ours are JSON only.
warnings.simplefilter("ignore", SecurityWarning)


@setup_logging.connect
def keep_logging(**arguments: object) -> None:
    """Being connected is the point: Celery then leaves the logging that Django's settings have set up alone."""


class HeartbeatStep(bootsteps.StartStopStep):
    """Beats from the consumer's own loop, so a worker that hangs or has lost its broker falls silent."""

    requires = {"celery.worker.consumer.tasks:Tasks"}

    def __init__(self, parent: Any, **options: object) -> None:
        super().__init__(parent, **options)
        self._timer: Any = None

    def start(self, parent: Any) -> None:
        self._beat(parent)
        self._timer = parent.timer.call_repeatedly(INTERVAL_SECONDS, self._beat, (parent,))

    def stop(self, parent: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _beat(self, parent: Any) -> None:
        for queue in parent.app.amqp.queues.consume_from:
            write_heartbeat(worker_key(queue))


app.steps["consumer"].add(HeartbeatStep)
