"""The sockets: of the conversations, and of the trainings."""

from channels.routing import URLRouter
from channels.security.websocket import WebsocketDenier
from django.urls import path, re_path

from chat.consumers import ChatConsumer
from chat.socket_access import SocketAccessMiddleware
from finetuning.live.consumers import JobConsumer

socket_application = SocketAccessMiddleware(
    URLRouter(
        [
            path("ws/chat/", ChatConsumer.as_asgi()),
            path("ws/jobs/", JobConsumer.as_asgi()),
            path("ws/jobs/<uuid:job_id>/", JobConsumer.as_asgi()),
            re_path(r"", WebsocketDenier.as_asgi()),  # without it an unknown path is an error 500
        ]
    )
)
