"""Webhooks: who is told of what."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from expunge.service.api.answers import DeliveriesOut, DeliveryOut, SecretOut, WebhookMade, WebhookOut, WebhooksOut
from expunge.service.api.bodies import WebhookBody
from expunge.service.api.context import Asker, Here, router, serve
from expunge.service.api.wire import WebhookId
from expunge.service.webhooks.endpoints import Webhook

routes = router()


def told(webhook: Webhook) -> dict[str, Any]:
    values = {name: value for name, value in asdict(webhook).items() if name in WebhookOut.model_fields}
    return {**values, "events": list(webhook.events)}


@serve(routes, "make_webhook", response_model=WebhookMade)
def make_webhook(body: WebhookBody, here: Here, actor: Asker) -> WebhookMade:
    """https to a public address. Messages are signed with the secret as Standard Webhooks says."""
    webhook, secret = here.webhooks.make(actor, body.url, body.events)
    return WebhookMade(**told(webhook), secret=secret)


@serve(routes, "list_webhooks", response_model=WebhooksOut)
def list_webhooks(here: Here, actor: Asker) -> WebhooksOut:
    return WebhooksOut(items=[WebhookOut(**told(one)) for one in here.webhooks.list(actor)])


@serve(routes, "get_webhook", response_model=WebhookOut)
def get_webhook(webhook_id: WebhookId, here: Here, actor: Asker) -> WebhookOut:
    return WebhookOut(**told(here.webhooks.get(actor, webhook_id)))


@serve(routes, "remove_webhook")
def remove_webhook(webhook_id: WebhookId, here: Here, actor: Asker) -> None:
    """Its secret is destroyed, and what was on its way is not sent."""
    here.webhooks.remove(actor, webhook_id)


@serve(routes, "rotate_webhook", response_model=SecretOut)
def rotate_webhook(webhook_id: WebhookId, here: Here, actor: Asker) -> SecretOut:
    """For a day messages have a signature of the old secret too."""
    return SecretOut(secret=here.webhooks.rotate(actor, webhook_id))


@serve(routes, "enable_webhook", response_model=WebhookOut)
def enable_webhook(webhook_id: WebhookId, here: Here, actor: Asker) -> WebhookOut:
    return WebhookOut(**told(here.webhooks.switch(actor, webhook_id, on=True)))


@serve(routes, "disable_webhook", response_model=WebhookOut)
def disable_webhook(webhook_id: WebhookId, here: Here, actor: Asker) -> WebhookOut:
    return WebhookOut(**told(here.webhooks.switch(actor, webhook_id, on=False)))


@serve(routes, "list_deliveries", response_model=DeliveriesOut)
def list_deliveries(webhook_id: WebhookId, here: Here, actor: Asker) -> DeliveriesOut:
    """The newest hundred."""
    found = here.webhooks.deliveries(actor, webhook_id)
    kept = DeliveryOut.model_fields
    items = [DeliveryOut(**{name: v for name, v in asdict(one).items() if name in kept}) for one in found]
    return DeliveriesOut(items=items)
