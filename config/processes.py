"""What supervisord of this instance runs, asked over its private socket."""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from xmlrpc.client import Fault, ServerProxy

from supervisor.xmlrpc import SupervisorTransport

from config.app_settings import AppSettings
from config.serve import supervisor_socket

# It has said what it had to say and ended.
ONE_SHOT = "ready"


class NotRunningError(Exception):
    """This instance's supervisord does not answer."""


@dataclass(frozen=True)
class Process:
    name: str
    state: str  # supervisord's words: RUNNING, STARTING, BACKOFF, STOPPED ...
    pid: int  # 0 while it does not run
    description: str


def list_processes(settings: AppSettings) -> list[Process]:
    """Raises NotRunningError when there is nobody to ask."""
    found = _call(settings, "getAllProcessInfo")
    return [
        Process(name=info["name"], state=info["statename"], pid=info["pid"], description=info["description"])
        for info in found
        if info["name"] != ONE_SHOT
    ]


def restart_process(settings: AppSettings, name: str) -> None:
    """Stop and start one process, and wait for both. Raises NotRunningError, or LookupError for an unknown name."""
    found = {info["name"]: info for info in _call(settings, "getAllProcessInfo")}
    if name not in found:
        raise LookupError(name)
    full_name = f"{found[name]['group']}:{name}"
    if found[name]["pid"]:
        _call(settings, "stopProcess", full_name)
    _call(settings, "startProcess", full_name)


def _call(settings: AppSettings, method: str, *arguments: str) -> list[dict]:
    transport = SupervisorTransport("", "", f"unix://{supervisor_socket(settings)}")
    try:
        with ServerProxy("http://127.0.0.1", transport=transport) as proxy:
            return getattr(proxy.supervisor, method)(*arguments)
    except (OSError, http.client.HTTPException, Fault) as error:
        raise NotRunningError(str(error)) from error
