"""The ASGI application: HTTP by Django, WebSockets by Channels."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django_application = get_asgi_application()

from channels.routing import ProtocolTypeRouter  # noqa: E402

from config.routing import socket_application  # noqa: E402

application = ProtocolTypeRouter({"http": django_application, "websocket": socket_application})
