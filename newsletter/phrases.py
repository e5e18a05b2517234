"""What Carteiro itself says to readers, in their newsletter's language."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, fields, replace
from typing import Any


@dataclass(frozen=True)
class Phrases:
    """The sentences of mails and public pages; `{newsletter}` in them is filled by `about`."""

    language: str
    months: tuple[str, ...]
    date_pattern: str
    first_day: str
    by: str
    listen: str
    view_on_web: str
    because: str
    unsubscribe: str
    unsubscribe_question: str
    unsubscribe_button: str
    unsubscribed_title: str
    unsubscribed_text: str
    unknown_link: str
    confirm_subject: str
    confirm_text: str
    confirm_button: str
    confirm_otherwise: str
    confirm_question: str
    confirmed_title: str
    confirmed_text: str
    archive: str

    def about(self, newsletter: str) -> Phrases:
        """Return the same phrases with the newsletter's name filled in."""
        texts = {f.name: getattr(self, f.name) for f in fields(self)}
        filled: dict[str, Any] = {
            name: text.replace("{newsletter}", newsletter)
            for name, text in texts.items()
            if isinstance(text, str)
        }
        return replace(self, **filled)

    def date(self, day: datetime.date) -> str:
        """Write a date in full: "3 June 2026", "3 de junho de 2026"."""
        number = self.first_day if day.day == 1 else str(day.day)
        return self.date_pattern.format(day=number, month=self.months[day.month - 1], year=day.year)

    def duration(self, seconds: int) -> str:
        """Write an episode's length, rounded to the minute: "32 min", "1 h 05 min"."""
        minutes = max(1, (seconds + 30) // 60)
        return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def phrases(language: str) -> Phrases:
    """Find the phrases for a BCP 47 tag: the exact one, else its language, else English."""
    tag = language.strip().lower().replace("_", "-")
    return _PHRASES.get(tag) or _PHRASES.get(tag.split("-")[0]) or _ENGLISH


_ENGLISH = Phrases(
    language="en",
    months=(
        "January", "February", "March", "April", "May", "June",
        "July", "August", "September", "October", "November", "December",
    ),
    date_pattern="{day} {month} {year}",
    first_day="1",
    by="by",
    listen="Listen to the episode",
    view_on_web="View on the web",
    because="You are receiving this e-mail because you subscribed to {newsletter}.",
    unsubscribe="Unsubscribe",
    unsubscribe_question="Unsubscribe from {newsletter}?",
    unsubscribe_button="Yes, unsubscribe me",
    unsubscribed_title="You have been unsubscribed",
    unsubscribed_text="You will not receive {newsletter} any more.",
    unknown_link="This link is not valid, or no longer valid.",
    confirm_subject="Please confirm: {newsletter}",
    confirm_text="Somebody, probably you, asked that {newsletter} be sent to this address. It comes once you confirm:",
    confirm_button="Yes, subscribe me",
    confirm_otherwise="If it was not you, do nothing: you will not be subscribed.",
    confirm_question="Subscribe to {newsletter}?",
    confirmed_title="You are subscribed",
    confirmed_text="You will receive {newsletter} from its next issue on.",
    archive="All issues",
)  # fmt: skip

_PORTUGUESE = Phrases(
    language="pt",
    months=(
        "janeiro", "fevereiro", "março", "abril", "maio", "junho",
        "julho", "agosto", "setembro", "outubro", "novembro", "dezembro",
    ),
    date_pattern="{day} de {month} de {year}",
    first_day="1",
    by="por",
    listen="Ouvir o episódio",
    view_on_web="Ver no navegador",
    because="Recebe este e-mail porque subscreveu {newsletter}.",
    unsubscribe="Cancelar a subscrição",
    unsubscribe_question="Cancelar a subscrição de {newsletter}?",
    unsubscribe_button="Sim, cancelar a subscrição",
    unsubscribed_title="Subscrição cancelada",
    unsubscribed_text="Não voltará a receber {newsletter}.",
    unknown_link="Esta ligação não é válida ou já expirou.",
    confirm_subject="Confirme, por favor: {newsletter}",
    confirm_text="Foi pedido o envio de {newsletter} para este endereço. Só começará depois de o confirmar:",
    confirm_button="Sim, quero subscrever",
    confirm_otherwise="Se não fez este pedido, não faça nada: a subscrição não será feita.",
    confirm_question="Subscrever {newsletter}?",
    confirmed_title="Subscrição confirmada",
    confirmed_text="Receberá {newsletter} a partir da próxima edição.",
    archive="Todas as edições",
)  # fmt: skip

_BRAZILIAN = replace(
    _PORTUGUESE,
    language="pt-br",
    first_day="1º",
    because="Você está recebendo este e-mail porque se inscreveu em {newsletter}.",
    unsubscribe="Cancelar inscrição",
    unsubscribe_question="Cancelar sua inscrição em {newsletter}?",
    unsubscribe_button="Sim, cancelar inscrição",
    unsubscribed_title="Inscrição cancelada",
    unsubscribed_text="Você não receberá mais {newsletter}.",
    unknown_link="Este link não é válido ou já expirou.",
    confirm_subject="Confirme, por favor: {newsletter}",
    confirm_text=(
        "Alguém, provavelmente você, pediu para receber {newsletter} neste endereço. "
        "O envio só começa depois que você confirmar:"
    ),
    confirm_button="Sim, quero me inscrever",
    confirm_otherwise="Se não foi você, não faça nada: a inscrição não será feita.",
    confirm_question="Inscrever-se em {newsletter}?",
    confirmed_title="Inscrição confirmada",
    confirmed_text="Você receberá {newsletter} a partir da próxima edição.",
)

_SPANISH = Phrases(
    language="es",
    months=(
        "enero", "febrero", "marzo", "abril", "mayo", "junio",
        "julio", "agosto", "septiembre", "octubre", "noviembre", "diciembre",
    ),
    date_pattern="{day} de {month} de {year}",
    first_day="1",
    by="por",
    listen="Escuchar el episodio",
    view_on_web="Ver en el navegador",
    because="Recibes este correo porque te suscribiste a {newsletter}.",
    unsubscribe="Cancelar la suscripción",
    unsubscribe_question="¿Cancelar tu suscripción a {newsletter}?",
    unsubscribe_button="Sí, cancelar la suscripción",
    unsubscribed_title="Suscripción cancelada",
    unsubscribed_text="Ya no recibirás {newsletter}.",
    unknown_link="Este enlace no es válido o ha caducado.",
    confirm_subject="Confirma, por favor: {newsletter}",
    confirm_text=(
        "Alguien, probablemente tú, ha pedido recibir {newsletter} en esta dirección. "
        "Solo llegará cuando lo confirmes:"
    ),
    confirm_button="Sí, quiero suscribirme",
    confirm_otherwise="Si no has sido tú, no hagas nada: no quedarás suscrito.",
    confirm_question="¿Suscribirte a {newsletter}?",
    confirmed_title="Suscripción confirmada",
    confirmed_text="Recibirás {newsletter} a partir del próximo número.",
    archive="Todos los números",
)  # fmt: skip

_GERMAN = Phrases(
    language="de",
    months=(
        "Januar", "Februar", "März", "April", "Mai", "Juni",
        "Juli", "August", "September", "Oktober", "November", "Dezember",
    ),
    date_pattern="{day}. {month} {year}",
    first_day="1",
    by="von",
    listen="Folge anhören",
    view_on_web="Im Browser ansehen",
    because="Sie erhalten diese E-Mail, weil Sie {newsletter} abonniert haben.",
    unsubscribe="Abbestellen",
    unsubscribe_question="{newsletter} abbestellen?",
    unsubscribe_button="Ja, abbestellen",
    unsubscribed_title="Abbestellt",
    unsubscribed_text="Sie erhalten {newsletter} nicht mehr.",
    unknown_link="Dieser Link ist ungültig oder abgelaufen.",
    confirm_subject="Bitte bestätigen: {newsletter}",
    confirm_text=(
        "Jemand, vermutlich Sie, hat {newsletter} für diese Adresse bestellt. "
        "Der Versand beginnt erst, wenn Sie es bestätigen:"
    ),
    confirm_button="Ja, ich möchte abonnieren",
    confirm_otherwise="Wenn Sie es nicht waren, tun Sie nichts: Es wird kein Abonnement eingerichtet.",
    confirm_question="{newsletter} abonnieren?",
    confirmed_title="Abonniert",
    confirmed_text="Sie erhalten {newsletter} ab der nächsten Ausgabe.",
    archive="Alle Ausgaben",
)  # fmt: skip

_FRENCH = Phrases(
    language="fr",
    months=(
        "janvier", "février", "mars", "avril", "mai", "juin",
        "juillet", "août", "septembre", "octobre", "novembre", "décembre",
    ),
    date_pattern="{day} {month} {year}",
    first_day="1er",
    by="par",
    listen="Écouter l’épisode",
    view_on_web="Voir dans le navigateur",
    because="Vous recevez cet e-mail parce que vous êtes abonné(e) à {newsletter}.",
    unsubscribe="Se désabonner",
    unsubscribe_question="Se désabonner de {newsletter} ?",
    unsubscribe_button="Oui, me désabonner",
    unsubscribed_title="Vous êtes désabonné(e)",
    unsubscribed_text="Vous ne recevrez plus {newsletter}.",
    unknown_link="Ce lien n’est pas valide ou a expiré.",
    confirm_subject="Merci de confirmer : {newsletter}",
    confirm_text=(
        "Quelqu’un, sans doute vous, a demandé à recevoir {newsletter} à cette adresse. "
        "L’envoi ne commencera qu’après votre confirmation :"
    ),
    confirm_button="Oui, je m’abonne",
    confirm_otherwise="Si ce n’était pas vous, ne faites rien : aucun abonnement ne sera créé.",
    confirm_question="S’abonner à {newsletter} ?",
    confirmed_title="Vous êtes abonné(e)",
    confirmed_text="Vous recevrez {newsletter} à partir du prochain numéro.",
    archive="Tous les numéros",
)  # fmt: skip

_PHRASES = {p.language: p for p in (_ENGLISH, _PORTUGUESE, _BRAZILIAN, _SPANISH, _GERMAN, _FRENCH)}
