"""Server-sent events, decoded from whatever pieces the network brings.

The law: the events that come out depend only on the bytes that went in, never on where a read
ended. Lines end in LF, CR or CRLF; a byte order mark at the start is dropped; comments and unknown
fields are ignored; several `data` lines are joined by LF; an event without data is none. Data stays
bytes: a multi-byte character is never cut, because only line ends are looked for, and no byte of
a UTF-8 sequence is one. One event is bounded, so that a broken upstream cannot fill the memory.

Source: WHATWG HTML, "Server-sent events", sections 9.2.5 and 9.2.6. One deviation, in `flush`: an
event that the end of the stream left without its blank line is given, since some servers end so.
"""

from __future__ import annotations

import msgspec

from vision.models.failures import garbled

# A chat chunk takes a few hundred bytes; one with the whole text of an answer far under a megabyte.
MAX_EVENT_BYTES = 1 << 20

_BOM = b"\xef\xbb\xbf"


class SseEvent(msgspec.Struct, frozen=True):
    """One event: its type (`message` when the stream gave none) and its data, undecoded."""

    name: str
    data: bytes


class SseDecoder:
    """Turns the reads of one stream into its events. Use a new one for each stream."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_event_bytes
        self._start: bytes | None = b""  # the first bytes, until it is clear whether they are a BOM
        self._rest: list[bytes] = []  # pieces of the line that is not yet complete
        self._data: list[bytes] = []
        self._name = ""
        self._size = 0  # bytes held for the event in progress
        self._after_cr = False  # a LF that comes now belongs to the CR before it

    def feed(self, read: bytes) -> list[SseEvent]:
        """The events that `read` completed, in order.

        Raises ModelError `upstream_garbled` when one event exceeds the bound.
        """
        if self._between and len(read) <= self._max and (events := _plain(read)) is not None:
            return events
        read = self._without_bom(read)
        if self._after_cr and read:
            self._after_cr = False
            read = read.removeprefix(b"\n")
        if not read:
            return []
        if b"\n" not in read and b"\r" not in read:
            # Kept in pieces: joining at every read would make a long line quadratic.
            self._hold(self._rest, read)
            return []
        self._after_cr = read.endswith(b"\r")
        return self._lines(b"".join((*self._rest, read)))

    @property
    def _between(self) -> bool:
        """Whether nothing of an event has been read yet."""
        begun = self._start is not None or self._rest or self._data or self._name
        return not (begun or self._after_cr)

    def flush(self) -> list[SseEvent]:
        """At the end of the stream: the event in progress, if it has data."""
        text = b"".join((self._start or b"", *self._rest))
        return self._lines(text + b"\n\n")

    def _without_bom(self, read: bytes) -> bytes:
        if self._start is None:
            return read
        start = self._start + read
        if len(start) < len(_BOM) and _BOM.startswith(start):
            self._start = start
            return b""
        self._start = None
        return start.removeprefix(_BOM)

    def _lines(self, text: bytes) -> list[SseEvent]:
        self._size -= sum(map(len, self._rest))
        self._rest = []
        lines = text.splitlines()  # of bytes: at LF, CR and CRLF only
        if text[-1] not in b"\r\n":
            self._hold(self._rest, lines.pop())
        events: list[SseEvent] = []
        for line in lines:
            if line:
                self._field(line)
            elif self._data:
                events.append(SseEvent(self._name or "message", b"\n".join(self._data)))
                self._begin()
            else:
                self._begin()
        return events

    def _begin(self) -> None:
        self._size -= sum(map(len, self._data))
        self._data = []
        self._name = ""

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"data":
            self._hold(self._data, value.removeprefix(b" "))
        elif name == b"event":
            self._name = value.removeprefix(b" ").decode("utf-8", "replace")

    def _hold(self, held: list[bytes], piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._max:
            raise garbled(f"the upstream sent an event of more than {self._max} bytes")
        held.append(piece)


def _plain(read: bytes) -> list[SseEvent] | None:
    """The events of a read in the form that servers use: whole, each of one `data` line and LFs.

    None when it is of any other form, which the decoder then takes line by line.
    """
    texts = read.split(b"\n\n")
    if texts.pop() or b"\r" in read:
        return None
    events: list[SseEvent] = []
    for text in texts:
        if text[:6] != b"data: " or b"\n" in text:
            return None
        events.append(SseEvent("message", text[6:]))
    return events
