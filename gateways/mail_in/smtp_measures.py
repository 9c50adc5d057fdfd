"""What the SMTP door counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gateways.mail_in.smtp_service import Admission, Ending, MailOutcome


class SmtpMeasures:
    """Connections by how they were admitted and ended, mails by what became of them, and their sizes in bytes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._connections = Counter(
            "postledger_smtp_connections_total", "SMTP connections", ["admission"], registry=registry
        )
        self._open = Gauge("postledger_smtp_connections_open", "SMTP connections open now", registry=registry)
        self._endings = Counter("postledger_smtp_endings_total", "SMTP connections over", ["ending"], registry=registry)
        self._mails = Counter("postledger_smtp_mails_total", "Mails begun with DATA", ["outcome"], registry=registry)
        self._bytes = Histogram(
            "postledger_smtp_mail_bytes",
            "Bytes of mails that were kept",
            buckets=[2**exponent for exponent in range(10, 26, 2)],
            registry=registry,
        )

    def connection(self, admission: Admission) -> None:
        self._connections.labels(admission).inc()
        if admission == "accepted":
            self._open.inc()

    def ended(self, ending: Ending) -> None:
        self._open.dec()
        self._endings.labels(ending).inc()

    def mail(self, outcome: MailOutcome, size: int) -> None:
        self._mails.labels(outcome).inc()
        if outcome == "kept":
            self._bytes.observe(size)
