"""The providers' webhooks: what is let in, what is kept, and what it changes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import DataError
from django.db.models import F
from django.http import HttpResponse
from django.test import Client
from pytest_django import Settings

from config import environment
from delivery import feedback, jobs, provider_events, settling, sns, webhooks
from delivery.errors import EdgeError
from delivery.models import EmailDelivery, Job, ProviderEvent
from newsletter.models import Issue, Suppression, Transition, database_now
from newsletter.models.transition import Subject
from tests.drain import drain, frozen, hurry, row_of
from tests.stand_ins import webhooks as signed
from tests.stand_ins.http import HttpStandIn, reply
from tests.stand_ins.webhooks import TOPIC, Sent

pytestmark = pytest.mark.django_db

MESSAGE = "0102018f-message"


@pytest.fixture
def issue() -> Issue:
    """bob and carla, of unknown fate."""
    made = frozen(2)
    now = database_now()
    EmailDelivery.objects.update(status="unknown", attempt=1, sending_at=now, settled_at=now)
    Job.objects.all().delete()
    return made


@pytest.fixture
def amazon(monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpStandIn]:
    """SNS itself: its certificate, and what it is asked."""
    routes = {signed.CERTIFICATE_PATH: [reply(body=signed.sns_certificate())]}
    with HttpStandIn(reply(body="<ok/>"), routes=routes) as server:
        monkeypatch.setattr(sns, "endpoint", lambda arn: server.url("").rstrip("/"))
        yield server


@pytest.fixture(autouse=True)
def _configured(settings: Settings) -> None:
    settings.WEBHOOK_SECRET = signed.SVIX_SECRET
    settings.SNS_TOPIC_ARN = TOPIC


def post(provider: str, sent: Sent) -> HttpResponse:
    body, headers = sent
    return Client().post(  # type: ignore[return-value]
        f"/webhooks/{provider}/", body, content_type="application/json", headers=headers
    )


def ses(kind: str, delivery: object = None, **what: Any) -> dict[str, Any]:
    """https://docs.aws.amazon.com/ses/latest/dg/event-publishing-retrieving-sns-examples.html"""
    tags = {"delivery": [str(delivery)]} if delivery else {}
    mail = {"messageId": MESSAGE, "destination": ["bob@example.org"], "tags": tags}
    name = kind[:1].lower() + kind[1:]
    return {
        "eventType": kind,
        "mail": mail,
        name: {"timestamp": "2026-06-01T07:00:00.000Z", **what},
    }


def ses_bounce(delivery: object, kind: str = "Permanent", **over: str) -> dict[str, Any]:
    told = {"emailAddress": "bob@example.org", "status": "5.1.1", **over}
    return ses("Bounce", delivery, bounceType=kind, bouncedRecipients=[told])


def postmark(record: str, delivery: object = None, **over: Any) -> dict[str, Any]:
    """https://postmarkapp.com/developer/webhooks/delivery-webhook and its siblings"""
    metadata = {"delivery": str(delivery)} if delivery else {}
    whose = {"MessageID": MESSAGE, "Recipient": "bob@example.org", "Metadata": metadata}
    return {"RecordType": record, **whose, "DeliveredAt": "2026-06-01T07:00:00.1234567Z", **over}


def resend(kind: str, delivery: object = None, **data: Any) -> dict[str, Any]:
    """https://resend.com/docs/webhooks/emails/delivered"""
    tags = {"tags": {"delivery": str(delivery)}} if delivery else {}
    what = {"email_id": MESSAGE, "to": ["bob@example.org"], **tags, **data}
    return {"type": f"email.{kind}", "created_at": "2026-06-01T07:00:00.000Z", "data": what}


def tell(event: dict[str, Any], id: str = "msg_1") -> ProviderEvent:
    """Resend tells it, and the jobs run."""
    assert post("resend", signed.svix(event, id=id)).status_code == 200
    drain(but="deliver")
    return ProviderEvent.objects.latest("id")


def later() -> None:
    """The event is no longer quite new."""
    ProviderEvent.objects.update(received_at=F("received_at") - 2 * feedback.SETTLES)


# --- the doors


def test_a_signed_event_of_resend_is_kept_and_applied(issue: Issue) -> None:
    event = tell(resend("delivered", row_of("bob").pk))
    assert (event.kind, event.delivery, event.note) == (
        "delivered",
        row_of("bob"),
        "unknown -> sent",
    )
    assert event.applied_at and event.occurred_at
    row = row_of("bob")
    assert (row.status, row.reason) == ("sent", "resend event")
    assert row.provider_message_id == MESSAGE


def test_an_event_of_postmark_with_the_password_is_applied(
    issue: Issue, settings: Settings
) -> None:
    settings.WEBHOOK_SECRET = signed.BASIC_SECRET
    sent = signed.basic(postmark("Delivery", row_of("bob").pk))
    assert post("postmark", sent).status_code == 200
    drain(but="deliver")
    assert row_of("bob").status == "sent"


@pytest.mark.parametrize("version", ["1", "2"])
def test_an_event_of_ses_waits_for_the_certificate_and_is_applied(
    issue: Issue, amazon: HttpStandIn, version: str
) -> None:
    sent = signed.sns(
        ses("Delivery", row_of("bob").pk), version=version, host=amazon.url("").rstrip("/")
    )
    first = post("ses", sent)
    assert (first.status_code, first["Retry-After"]) == (503, "20")
    assert drain(but="deliver") == ["fetch_certificate"]
    assert post("ses", sent).status_code == 200
    drain(but="deliver")
    assert row_of("bob").status == "sent"
    assert [asked.path for asked in amazon.requests] == [signed.CERTIFICATE_PATH]


@pytest.mark.parametrize("provider", ["ses", "postmark", "resend", "mailgun"])
def test_what_is_not_configured_is_not_there(settings: Settings, provider: str) -> None:
    settings.WEBHOOK_SECRET = settings.SNS_TOPIC_ARN = ""
    assert post(provider, signed.svix(resend("sent"))).status_code == 404


def test_a_secret_opens_the_door_of_its_own_kind_only(settings: Settings) -> None:
    assert post("postmark", signed.basic({}, secret=signed.SVIX_SECRET)).status_code == 404
    settings.WEBHOOK_SECRET = signed.BASIC_SECRET
    assert post("resend", signed.svix(resend("sent"))).status_code == 404


def test_only_a_post_is_taken() -> None:
    assert Client().get("/webhooks/resend/").status_code == 405


FORGERIES: dict[str, Callable[[], Sent]] = {
    "another key": lambda: signed.svix(resend("sent"), secret="whsec_" + "QUJD" * 8),
    "too old": lambda: signed.svix(resend("sent"), at=time.time() - 301),
    "of the future": lambda: signed.svix(resend("sent"), at=time.time() + 360),
    "another body": lambda: (b'{"type": 1}', signed.svix(resend("sent"))[1]),
    "another id": lambda: _with("svix-id", "msg_2"),
    "another time": lambda: _with("svix-timestamp", str(int(time.time()) - 1)),
    "no signature": lambda: _with("svix-signature", ""),
    "no id": lambda: signed.svix(resend("sent"), id=""),
    "a strange time": lambda: _with("svix-timestamp", "½"),
    "an endless time": lambda: _with("svix-timestamp", "9" * 5000),
    "another version": lambda: _with("svix-signature", "v2,abc v1a,def , v1"),
    "no headers": lambda: (b"{}", {}),
}


def _with(name: str, value: str) -> Sent:
    body, headers = signed.svix(resend("sent"))
    return body, {**headers, name: value}


@pytest.mark.parametrize("kind", sorted(FORGERIES))
def test_a_forged_event_of_resend_is_refused_and_not_kept(kind: str) -> None:
    assert post("resend", FORGERIES[kind]()).status_code == 403
    assert not ProviderEvent.objects.exists()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Basic"},
        {"authorization": "Basic !!!"},
        {"authorization": "Basic w6k="},
        {"authorization": "Bearer cG9zdG1hcms6YSBwYXNzd29yZCBvZiAxNiBvciBtb3Jl"},
        signed.basic({}, secret="postmark:another password")[1],
    ],
    ids=range(6),
)
def test_a_wrong_password_is_refused(settings: Settings, headers: dict[str, str]) -> None:
    settings.WEBHOOK_SECRET = signed.BASIC_SECRET
    assert post("postmark", (b"{}", headers)).status_code == 403
    assert not ProviderEvent.objects.exists()


def known(host: str = "") -> None:
    """The certificate is fetched already."""
    url = (host or signed.SNS_HOST) + signed.CERTIFICATE_PATH
    ProviderEvent.objects.create(
        provider="sns",
        event_key=webhooks._hash(url.encode()),
        kind="other",
        raw=signed.sns_certificate().decode(),
        applied_at=database_now(),
    )


def _tampered(**over: str) -> Sent:
    body, headers = signed.sns(ses("Delivery"))
    return json.dumps({**json.loads(body), **over}).encode(), headers


SNS_FORGERIES: dict[str, Callable[[], Sent]] = {
    "another topic of Amazon's": lambda: signed.sns(ses("Send"), TopicArn=TOPIC + "2"),
    "another message": lambda: _tampered(Message="{}"),
    "another subject": lambda: _tampered(Subject="x"),
    "another type": lambda: _tampered(Type="UnsubscribeConfirmation"),
    "no known type": lambda: signed.sns(ses("Send"), Type="Greeting"),
    "no known version": lambda: _tampered(SignatureVersion="3"),
    "a list for a version": lambda: _tampered(SignatureVersion=[]),  # type: ignore[arg-type]
    "an object for a version": lambda: _tampered(SignatureVersion={}),  # type: ignore[arg-type]
    "no signature": lambda: _tampered(Signature="!"),
    "a number": lambda: _tampered(Message=7),  # type: ignore[arg-type]
    "a lone surrogate": lambda: _tampered(Message="\ud800"),
    "no json": lambda: (b"{", {}),
    "a list": lambda: (b"[]", {}),
    "nothing": lambda: (b"", {}),
}
ELSEWHERE = (
    "http://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0.pem",
    "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0.pem",
    "https://sns.eu-west-1.amazonaws.com.evil.example/SimpleNotificationService-0.pem",
    "https://evil.example/?https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0.pem",
    "https://sns.eu-west-1.amazonaws.com@evil.example/SimpleNotificationService-0.pem",
    "https://bucket.s3.amazonaws.com/SimpleNotificationService-0.pem",
    "https://sns.eu-west-1.amazonaws.com/../SimpleNotificationService-0.pem",
    "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0.pem?x",
    "",
)


@pytest.mark.parametrize("kind", sorted(SNS_FORGERIES))
def test_a_forged_event_of_ses_is_refused_and_not_kept(kind: str) -> None:
    known()
    assert post("ses", SNS_FORGERIES[kind]()).status_code == 403
    assert ProviderEvent.objects.exclude(provider="sns").count() == 0
    assert not Job.objects.exists()


@pytest.mark.parametrize("url", ELSEWHERE)
def test_a_certificate_that_does_not_lie_with_amazon_is_never_fetched(url: str) -> None:
    assert post("ses", signed.sns(ses("Send"), SigningCertURL=url)).status_code == 403
    assert not Job.objects.exists()
    assert webhooks.fetch_certificate(url).note == "it does not lie with Amazon"


def test_a_genuine_certificate_lies_with_amazon() -> None:
    url = signed.SNS_HOST + signed.CERTIFICATE_PATH
    assert sns.certificate_url({"SigningCertURL": url}, TOPIC) == url
    assert sns.endpoint(TOPIC.replace("arn:aws:", "arn:aws-cn:")).endswith(".amazonaws.com.cn")


@pytest.mark.parametrize("body", [b"no certificate", b"", b"\xff\x00"])
def test_what_is_no_certificate_is_not_kept(amazon: HttpStandIn, body: bytes) -> None:
    url = amazon.url(signed.CERTIFICATE_PATH)
    amazon._routes[signed.CERTIFICATE_PATH] = [reply(body=body)]
    with pytest.raises(EdgeError, match="cannot be used"):
        webhooks.fetch_certificate(url)
    assert not ProviderEvent.objects.exists()


def test_a_certificate_that_is_over_signs_nothing(amazon: HttpStandIn) -> None:
    over = signed.sns_certificate(days=1)
    assert not sns.is_genuine(json.loads(signed.sns(ses("Send"))[0]), over)


def test_a_certificate_that_does_not_exist_is_not_asked_for_again(amazon: HttpStandIn) -> None:
    amazon._routes[signed.CERTIFICATE_PATH] = [reply(404)]
    assert "404" in webhooks.fetch_certificate(amazon.url(signed.CERTIFICATE_PATH)).note


def test_the_subscription_of_our_topic_is_confirmed_by_a_job(amazon: HttpStandIn) -> None:
    host = amazon.url("").rstrip("/")
    known(host)
    sent = signed.confirmation(SigningCertURL=host + signed.CERTIFICATE_PATH)
    assert post("ses", sent).status_code == 200
    assert not amazon.requests
    assert drain() == ["confirm_subscription"]
    (asked,) = amazon.requests
    assert asked.path.startswith("/?Action=ConfirmSubscription&TopicArn=arn%3Aaws%3Asns")
    assert asked.path.endswith("&Token=t0ken")


def test_the_subscription_of_another_topic_is_not_confirmed(amazon: HttpStandIn) -> None:
    known()
    assert post("ses", signed.confirmation(TopicArn=TOPIC + "2")).status_code == 403
    assert not Job.objects.exists()


def test_the_end_of_a_subscription_is_kept_and_changes_nothing() -> None:
    known()
    assert post("ses", signed.confirmation("UnsubscribeConfirmation")).status_code == 200
    assert not Job.objects.exists()


def test_a_word_of_sns_itself_is_no_event() -> None:
    known()
    greeting = "Successfully validated SNS topic for Amazon SES event publishing."
    assert post("ses", signed.sns(greeting)).status_code == 200
    assert ProviderEvent.objects.get(provider="ses").kind == "other"


def test_a_body_that_is_too_long_is_refused() -> None:
    long = {**resend("sent"), "x": "y" * webhooks.LONGEST_BODY}
    assert post("resend", signed.svix(long)).status_code == 413
    assert not ProviderEvent.objects.exists()


@pytest.mark.parametrize("body", ["7", '"x"', "null", "[7]", "[[]]", "nonsense"])
def test_a_signed_body_that_is_no_event_is_refused(settings: Settings, body: str) -> None:
    settings.WEBHOOK_SECRET = signed.BASIC_SECRET
    headers = signed.basic({})[1]
    assert post("postmark", (body.encode(), headers)).status_code == 400
    assert post("postmark", (b"\xff" + body.encode(), headers)).status_code == 400
    assert not ProviderEvent.objects.exists()


def test_a_body_that_is_nested_without_end_is_refused(settings: Settings) -> None:
    settings.WEBHOOK_SECRET = signed.BASIC_SECRET
    assert post("postmark", (b"[" * 100_000, signed.basic({})[1])).status_code == 400


def test_events_that_come_in_one_body_are_kept_one_by_one(issue: Issue, settings: Settings) -> None:
    settings.WEBHOOK_SECRET = signed.BASIC_SECRET
    carla = {"Recipient": "carla@example.org"}
    both = [
        postmark("Delivery", row_of("bob").pk),
        postmark("Delivery", row_of("carla").pk, **carla),
    ]
    post("postmark", signed.basic(both))
    post("postmark", signed.basic(both))
    drain(but="deliver")
    assert ProviderEvent.objects.count() == 2
    assert (row_of("bob").status, row_of("carla").status) == ("sent", "sent")


def test_more_events_in_one_body_than_anybody_sends_are_refused(settings: Settings) -> None:
    settings.WEBHOOK_SECRET = signed.BASIC_SECRET
    many = [{"n": number} for number in range(webhooks.MOST_EVENTS + 1)]
    assert post("postmark", signed.basic(many)).status_code == 400
    assert not ProviderEvent.objects.exists()
    assert post("postmark", signed.basic(many[1:])).status_code == 200


def test_an_event_that_comes_twice_is_kept_and_applied_once(issue: Issue) -> None:
    event = resend("bounced", row_of("bob").pk)
    first = tell(event)
    assert post("resend", signed.svix(event, at=time.time() - 60)).status_code == 200
    assert drain(but="deliver") == []
    assert ProviderEvent.objects.get() == first
    assert Suppression.objects.count() == 1


def test_a_job_that_runs_twice_applies_it_once(issue: Issue) -> None:
    post("resend", signed.svix(resend("delivered", row_of("bob").pk)))
    drain(but="deliver", twice=True)
    assert Transition.objects.of(Subject.DELIVERY, row_of("bob").pk).count() == 1


def test_opens_and_clicks_are_kept_and_change_nothing(issue: Issue) -> None:
    post("resend", signed.svix(resend("opened", row_of("bob").pk)))
    assert not Job.objects.exists()
    assert ProviderEvent.objects.get().note == "kept, and changes nothing"


# --- what they change


@pytest.mark.parametrize("kind", ["sent", "delivered", "delivery_delayed", "bounced", "complained"])
@pytest.mark.parametrize("status", ["unknown", "failed"])
def test_whatever_became_of_it_the_provider_had_it(issue: Issue, kind: str, status: str) -> None:
    EmailDelivery.objects.update(status=status)
    tell(resend(kind, row_of("bob").pk))
    assert row_of("bob").status == "sent"
    assert row_of("carla").status == status


@pytest.mark.parametrize("kind", ["failed", "suppressed"])
def test_what_the_provider_did_not_send_has_failed(issue: Issue, kind: str) -> None:
    tell(resend(kind, row_of("bob").pk))
    assert row_of("bob").status == "failed"


@pytest.mark.parametrize("kind", ["bounced", "failed", "complained", "delivered"])
@pytest.mark.parametrize("status", ["sent", "skipped", "pending"])
def test_no_event_makes_something_to_send_or_touches_what_is_decided(
    issue: Issue, kind: str, status: str
) -> None:
    EmailDelivery.objects.update(status=status)
    event = tell(resend(kind, row_of("bob").pk))
    assert row_of("bob").status == status
    assert event.applied_at and event.note.startswith(f"the delivery is {status}")


def test_an_acceptance_of_what_is_still_owed_is_noted(issue: Issue) -> None:
    EmailDelivery.objects.update(status="pending")
    tell(resend("delivered", row_of("bob").pk))
    change = Transition.objects.of(Subject.DELIVERY, row_of("bob").pk).get()
    assert change.reason == "late evidence: resend says delivered"


def test_a_row_on_the_wire_waits_for_our_own_commit(issue: Issue) -> None:
    EmailDelivery.objects.update(status="sending", fence=1)
    event = tell(resend("delivered", row_of("bob").pk))
    assert (event.applied_at, event.note) == (None, "the delivery is still on the wire")
    later()
    assert feedback.look_again() == 0
    EmailDelivery.objects.update(status="unknown")
    assert feedback.look_again() == 1
    assert row_of("bob").status == "sent"
    assert feedback.look_again() == 0


def test_the_tick_settles_by_what_had_come_before(issue: Issue) -> None:
    EmailDelivery.objects.update(status="sending", fence=1)
    tell(resend("bounced", row_of("bob").pk))
    later()
    EmailDelivery.objects.update(status="unknown")
    jobs.tick()
    assert row_of("bob").status == "sent"
    assert Suppression.objects.count() == 1


def test_an_event_without_our_number_is_known_by_the_providers(issue: Issue) -> None:
    event = tell(resend("delivered"))
    assert (event.applied_at, event.note) == (None, "no delivery has this message id yet")
    EmailDelivery.objects.filter(pk=row_of("bob").pk).update(provider_message_id=MESSAGE)
    later()
    assert feedback.look_again() == 1
    assert row_of("bob").status == "sent"


def test_an_event_that_nobody_is_known_for_is_given_up_in_the_end(issue: Issue) -> None:
    event = tell(resend("delivered"))
    ProviderEvent.objects.update(received_at=F("received_at") - feedback.PATIENCE)
    assert feedback.look_again() == 1
    event.refresh_from_db()
    assert event.applied_at and event.note == "there is no such delivery"


@pytest.mark.parametrize("number", [10**9, 10**17, 0, -1, "x", "1" * 400, None, ["1"], {"a": 1}])
def test_an_event_for_a_delivery_that_does_not_exist_is_kept_and_changes_nothing(
    issue: Issue, number: object
) -> None:
    event = resend("bounced")
    event["data"]["tags"] = {"delivery": number}
    kept = tell(event)
    assert kept.delivery is None
    assert "delivery" in kept.note
    assert row_of("bob").status == "unknown"
    assert not Suppression.objects.exists()


def test_an_event_for_another_recipient_changes_nothing(issue: Issue) -> None:
    event = tell(resend("complained", row_of("bob").pk, to=["Eve <eve@example.org>"]))
    assert event.note == "another recipient than the delivery's: not applied"
    assert row_of("bob").status == "unknown"
    assert not Suppression.objects.exists()


def test_an_event_of_another_copy_proves_nothing_of_this_one(issue: Issue) -> None:
    EmailDelivery.objects.update(provider_message_id="another")
    event = tell(resend("complained", row_of("bob").pk))
    assert event.note == ("of another copy than the one that is known; suppressed: a complaint")
    assert row_of("bob").status == "unknown"


def test_a_late_rejection_of_the_first_copy_is_not_taken_for_the_resent_ones(issue: Issue) -> None:
    bob = row_of("bob").pk
    settling.resend([bob], actor="ana", reason="he has nothing")
    EmailDelivery.objects.filter(pk=bob).update(status="unknown")
    tell(resend("failed", bob, email_id="the first"))
    assert (row_of("bob").status, row_of("bob").provider_message_id) == ("unknown", "")
    tell(resend("delivered", bob, email_id="the second"), id="msg_2")
    assert row_of("bob").status == "sent"


def test_the_recipient_is_known_however_it_is_written(issue: Issue) -> None:
    tell(resend("delivered", row_of("bob").pk, to=['"Bob B." <BOB@Example.ORG>']))
    assert row_of("bob").status == "sent"


def test_a_complaint_suppresses_and_unsubscribes(issue: Issue) -> None:
    tell(resend("complained", row_of("bob").pk))
    row = row_of("bob")
    assert Suppression.objects.get(address_key=row.address_key).reason == "complaint"
    assert row.subscription and row.subscription.state == "unsubscribed"


def test_a_hard_bounce_suppresses_and_does_not_unsubscribe(issue: Issue) -> None:
    tell(
        resend(
            "bounced",
            row_of("bob").pk,
            bounce={"type": "Permanent", "message": "no bob@example.org"},
        )
    )
    row = row_of("bob")
    suppression = Suppression.objects.get(address_key=row.address_key)
    assert (suppression.reason, "@" in suppression.detail) == ("bad_address", False)
    assert row.subscription and row.subscription.state == "confirmed"


@pytest.mark.parametrize(
    "bounce",
    [
        {"type": "Transient", "message": "mailbox full"},
        {"type": "Permanent", "message": "550 5.7.1 blocked by policy"},
        {"type": "Permanent", "message": "552 5.2.2 over quota"},
    ],
    ids=["transient", "policy", "full"],
)
def test_a_bounce_that_is_not_the_addresss_fault_suppresses_nobody(
    issue: Issue, bounce: dict[str, str]
) -> None:
    event = tell(resend("bounced", row_of("bob").pk, bounce=bounce))
    assert event.kind == "bounced"
    assert not Suppression.objects.exists()


def test_a_fault_with_one_event_does_not_keep_the_others_waiting(issue: Issue) -> None:
    for id, who in (("msg_1", "bob"), ("msg_2", "carla")):
        told = resend("delivered", row_of(who).pk, to=[f"{who}@example.org"])
        post("resend", signed.svix(told, id=id))
    broken = ProviderEvent.objects.earliest("id")
    ProviderEvent.objects.filter(pk=broken.pk).update(raw="broken")
    later()
    assert feedback.look_again() == 2
    assert row_of("carla").status == "sent"
    broken.refresh_from_db()
    assert broken.applied_at and broken.note == feedback.FAULT
    assert feedback.look_again() == 0


def test_an_event_that_the_database_cannot_apply_does_not_keep_the_others_waiting(
    issue: Issue, monkeypatch: pytest.MonkeyPatch
) -> None:
    for id, who in (("msg_1", "bob"), ("msg_2", "carla")):
        told = resend("delivered", row_of(who).pk, to=[f"{who}@example.org"])
        post("resend", signed.svix(told, id=id))
    look_at, first = feedback._look_at, ProviderEvent.objects.earliest("id").pk

    def unreadable(event_id: int) -> bool:
        if event_id == first:
            raise DataError("timestamp too large")
        return look_at(event_id)

    monkeypatch.setattr(feedback, "_look_at", unreadable)
    later()
    assert feedback.look_again() == 2
    assert row_of("carla").status == "sent"


@pytest.mark.parametrize(
    "at",
    ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "0001-01-01", "9999-12-31", "x"],
)
def test_a_time_at_which_no_mail_was_is_not_stored(issue: Issue, at: str) -> None:
    event = tell({**resend("delivered", row_of("bob").pk), "created_at": at})
    assert event.occurred_at is None
    assert row_of("bob").status == "sent"


def test_the_time_of_an_event_is_kept_in_any_zone() -> None:
    told = provider_events.read("resend", {"created_at": "2026-06-01T01:00:00+09:00"})
    assert told.occurred_at and told.occurred_at.isoformat() == "2026-05-31T16:00:00+00:00"


def test_what_is_looked_at_in_a_tick_is_bounded(
    issue: Issue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback, "LOOKED_AT", 1)
    for id, who in (("msg_1", "bob"), ("msg_2", "carla")):
        told = resend("delivered", row_of(who).pk, to=[f"{who}@example.org"])
        post("resend", signed.svix(told, id=id))
    later()
    assert [feedback.look_again(), feedback.look_again(), feedback.look_again()] == [1, 1, 0]


# --- the events themselves


def read(provider: str, event: Any) -> tuple[str, bool]:
    if provider == "ses":
        event = {"Message": json.dumps(event)}
    told = provider_events.read(provider, event)
    return told.kind, told.bad_address


KINDS: list[tuple[str, Any, str, bool]] = [
    ("ses", ses("Send"), "sent", False),
    ("ses", ses("Delivery", smtpResponse="250 ok"), "delivered", False),
    ("ses", ses("DeliveryDelay", delayType="TransientCommunicationFailure"), "deferred", False),
    ("ses", ses_bounce(1), "bounced", True),
    ("ses", ses_bounce(1, status="5.7.1"), "bounced", False),
    ("ses", ses_bounce(1, "Transient"), "bounced", False),
    ("ses", ses_bounce(1, "Undetermined"), "bounced", False),
    ("ses", ses("Reject", reason="Bad content"), "rejected", False),
    ("ses", {**ses("x"), "eventType": "Rendering Failure"}, "rejected", False),
    ("ses", ses("Complaint", complainedRecipients=[{"emailAddress": "a@b"}]), "complained", False),
    ("ses", ses("Open"), "other", False),
    ("ses", {**ses("Delivery"), "notificationType": "Delivery"}, "delivered", False),
    ("postmark", postmark("Delivery"), "delivered", False),
    ("postmark", postmark("Bounce", Type="HardBounce"), "bounced", True),
    ("postmark", postmark("Bounce", Type="HardBounce", Details="550 5.7.1 no"), "bounced", False),
    ("postmark", postmark("Bounce", Type="SoftBounce"), "bounced", False),
    ("postmark", postmark("Bounce", Type="Blocked"), "bounced", False),
    ("postmark", postmark("Bounce", Type="SpamNotification"), "bounced", False),
    ("postmark", postmark("Bounce", Type="Transient"), "deferred", False),
    ("postmark", postmark("Bounce", Type="BadEmailAddress"), "rejected", True),
    ("postmark", postmark("Bounce", Type="AutoResponder"), "other", False),
    ("postmark", postmark("SpamComplaint", Type="SpamComplaint"), "complained", False),
    ("postmark", postmark("Open"), "other", False),
    (
        "postmark",
        postmark(
            "SubscriptionChange",
            SuppressSending=True,
            SuppressionReason="ManualSuppression",
            Origin="Recipient",
        ),
        "unsubscribed",
        False,
    ),
    ("postmark", postmark("SubscriptionChange", SuppressSending=False), "other", False),
    ("resend", resend("sent"), "sent", False),
    ("resend", resend("bounced"), "bounced", True),
    ("resend", resend("clicked"), "other", False),
]


@pytest.mark.parametrize(("provider", "event", "kind", "bad"), KINDS, ids=range(len(KINDS)))
def test_each_event_has_its_kind(provider: str, event: Any, kind: str, bad: bool) -> None:
    assert read(provider, event) == (kind, bad)


def test_a_reader_who_unsubscribes_at_the_provider_is_unsubscribed(
    issue: Issue, settings: Settings
) -> None:
    settings.WEBHOOK_SECRET = signed.BASIC_SECRET
    why = {"SuppressionReason": "ManualSuppression", "Origin": "Recipient"}
    change = postmark("SubscriptionChange", row_of("bob").pk, SuppressSending=True, **why)
    post("postmark", signed.basic(change))
    drain(but="deliver")
    row = row_of("bob")
    assert row.subscription and row.subscription.state == "unsubscribed"
    assert row.status == "unknown"


@pytest.mark.parametrize("provider", ["ses", "postmark", "resend"])
@pytest.mark.parametrize("value", [None, 7, "x", [], {}, [7], {"x": [{}]}, "\0", "\ud800"])
def test_an_event_of_any_shape_is_read_without_a_fault(provider: str, value: Any) -> None:
    shapes = [
        {},
        {"mail": value, "eventType": "Bounce", "bounce": value},
        {"eventType": value, "Metadata": value, "RecordType": value, "type": value, "data": value},
        {"RecordType": "Bounce", "Type": value, "Email": value, "MessageID": value},
        {"type": "email.bounced", "data": {"to": value, "tags": value, "bounce": value}},
        {"eventType": "Bounce", "bounce": {"bouncedRecipients": value, "bounceType": value}},
    ]
    for shape in shapes:
        assert read(provider, shape)[0] in {"other", "bounced"}


def test_both_forms_of_tags_are_read() -> None:
    event = resend("sent", 7)
    assert provider_events.read("resend", event).delivery_id == 7
    event["data"]["tags"] = [{"name": "x", "value": "1"}, {"name": "delivery", "value": "8"}]
    assert provider_events.read("resend", event).delivery_id == 8


# --- the settings


@pytest.mark.parametrize(
    "secret", ["whsec_short", "whsec_!!", "nopassword", ":" + "x" * 20, "a:short"]
)
def test_a_secret_that_is_none_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    monkeypatch.setenv("WEBHOOK_SECRET", secret)
    with pytest.raises(ImproperlyConfigured, match="WEBHOOK_SECRET") as refused:
        environment.read()
    assert secret not in str(refused.value)


@pytest.mark.parametrize("topic", ["x", "arn:aws:sqs:eu-west-1:123456789012:x", TOPIC + ".fifo"])
def test_a_topic_that_is_none_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, topic: str
) -> None:
    monkeypatch.setenv("SNS_TOPIC_ARN", topic)
    with pytest.raises(ImproperlyConfigured, match="SNS_TOPIC_ARN"):
        environment.read()


def test_good_secrets_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for secret in (signed.SVIX_SECRET, signed.BASIC_SECRET):
        monkeypatch.setenv("WEBHOOK_SECRET", secret)
        monkeypatch.setenv("SNS_TOPIC_ARN", TOPIC)
        assert secret == environment.read().WEBHOOK_SECRET


def test_nothing_is_left_for_later_where_all_is_applied(issue: Issue) -> None:
    tell(resend("delivered", row_of("bob").pk))
    assert hurry() == 0
