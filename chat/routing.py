"""The one socket there is."""

from channels.routing import URLRouter
from channels.security.websocket import WebsocketDenier
from django.urls import path, re_path

from chat.consumers import ChatConsumer
from chat.socket_access import SocketAccessMiddleware

socket_application = SocketAccessMiddleware(
    URLRouter(
        [
            path("ws/chat/", ChatConsumer.as_asgi()),
            re_path(r"", WebsocketDenier.as_asgi()),  # without it an unknown path is an error 500
        ]
    )
)
