"""Django: the message is part of the database transaction of the view."""

from __future__ import annotations

import django
import protoflow
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.db import connection, transaction
from django.http import HttpRequest, JsonResponse
from django.urls import path
from protoflow import outbox
from shop.v1.orders_pb2 import OrderPlaced
from shop.v1.orders_protoflow import OrdersEventProducerSync

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "django.db"}},
    ROOT_URLCONF=__name__,
)
django.setup()
# Messages go to the outbox in the database; `protoflow relay` takes them to the broker.
events = OrdersEventProducerSync(protoflow.connect_sync(fallback={"transport": "kafka://"}))


def migrate() -> None:
    """Creates the tables; in a project this is `migrations.RunSQL(outbox.schema("sqlite"))`."""
    with connection.cursor() as cursor:
        cursor.executescript(outbox.schema("sqlite"))
        cursor.execute("CREATE TABLE IF NOT EXISTS shop_order (id TEXT PRIMARY KEY)")


def place(request: HttpRequest, order_id: str) -> JsonResponse:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO shop_order VALUES (%s)", [order_id])
        order = OrderPlaced(order_id=order_id, cents=1990)
        message_id = events.publish_order_placed(order, in_=connection)
    return JsonResponse({"message": message_id}, status=202)


urlpatterns = [path("orders/<order_id>", place)]
application = WSGIHandler()  # django.core.wsgi.get_wsgi_application() in a project
