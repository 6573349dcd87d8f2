"""Sends mail by SMTP: smtp://user:password@host:587 (with STARTTLS where the server has it) or smtps://…:465."""

from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage
from urllib.parse import unquote, urlsplit

import structlog

from service.settings import hide_password

TIMEOUT_S = 15
log = structlog.get_logger()


class Mail:
    """Sends; what cannot be sent is logged with what to do."""

    def __init__(self, url: str, sender: str) -> None:
        self._url = url
        self._sender = sender

    def send(self, to: str, subject: str, text: str) -> bool:
        """Send one letter and return whether the server took it. Blocks up to half a minute."""
        if not self._url:
            log.warning("mail_not_sent", why="SCP_SMTP_URL is not set", fix="Make the link with: python -m scp link USERNAME")
            return False
        letter = EmailMessage()
        letter["From"], letter["To"], letter["Subject"] = self._sender, to, subject
        letter.set_content(text)
        try:
            self._deliver(letter)
        except (OSError, smtplib.SMTPException) as error:
            log.error(
                "mail_not_sent", server=hide_password(self._url), why=str(error)[:200],
                fix="Mend SCP_SMTP_URL or the server; or make the link with: python -m scp link USERNAME",
            )  # fmt: skip
            return False
        return True

    def _deliver(self, letter: EmailMessage) -> None:
        parts = urlsplit(self._url)
        host, tls = parts.hostname or "", ssl.create_default_context()
        secure = parts.scheme == "smtps"
        port = parts.port or (465 if secure else 587)
        server = (
            smtplib.SMTP_SSL(host, port, timeout=TIMEOUT_S, context=tls)
            if secure
            else smtplib.SMTP(host, port, timeout=TIMEOUT_S)
        )
        with server:
            server.ehlo()
            if not secure and server.has_extn("starttls"):
                server.starttls(context=tls)
            if parts.username:
                if not secure and not server.has_extn("starttls"):
                    raise smtplib.SMTPException("the server has no STARTTLS: the password would go over the line readable")
                server.login(unquote(parts.username), unquote(parts.password or ""))
            server.send_message(letter)
