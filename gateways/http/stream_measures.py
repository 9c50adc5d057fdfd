"""What the live streams measure of themselves, for Prometheus: who listens, what was told, and why streams ended."""

from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge

#: A mailbox's stream, everything a caller may see, and a mailbox's WebSocket.
Kind = Literal["inbox_sse", "all_sse", "websocket"]
KINDS: Final[tuple[Kind, ...]] = ("inbox_sse", "all_sse", "websocket")
#: Why a stream ended. `slow`: more waited for the client than may; `unread`: it read nothing for too long; `behind`: we could
#: not go on, and the client resumes; `left`: it went by itself.
Cause = Literal["left", "ended", "slow", "unread", "behind", "revoked", "too_big", "restarting", "failed"]


class StreamMeasures:
    """One for each process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._opened = Counter("postledger_streams_opened_total", "Streams opened", ["kind"], registry=registry)
        self._ended = Counter("postledger_streams_ended_total", "Streams over", ["kind", "cause"], registry=registry)
        self._refused = Counter(
            "postledger_streams_refused_total", "Streams not opened", ["kind", "status"], registry=registry
        )
        open_now = Gauge("postledger_streams_open", "Clients of streams now", ["kind"], registry=registry)
        sent = Counter("postledger_stream_events_sent_total", "Events sent to clients", ["kind"], registry=registry)
        resets = Counter(
            "postledger_stream_resets_total",
            "Clients that came back too late, or from elsewhere",
            ["kind"],
            registry=registry,
        )
        # By kind beforehand: looking a child up by its labels costs more than counting, and what is zero is shown as zero.
        self._open = {kind: open_now.labels(kind) for kind in KINDS}
        self._sent = {kind: sent.labels(kind) for kind in KINDS}
        self._resets = {kind: resets.labels(kind) for kind in KINDS}
        for kind in KINDS:
            self._opened.labels(kind)
            self._ended.labels(kind, "slow")
            self._ended.labels(kind, "unread")

    def opened(self, kind: Kind) -> None:
        self._open[kind].inc()
        self._opened.labels(kind).inc()

    def ended(self, kind: Kind, cause: Cause) -> None:
        self._open[kind].dec()
        self._ended.labels(kind, cause).inc()

    def refused(self, kind: Kind, status: int) -> None:
        self._refused.labels(kind, str(status)).inc()

    def sent(self, kind: Kind, events: int) -> None:
        self._sent[kind].inc(events)

    def reset(self, kind: Kind) -> None:
        self._resets[kind].inc()
