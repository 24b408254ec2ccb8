"""HTTP on one connection: uvicorn's own, with bounds for a request's header before it is kept anywhere."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server.link.visitors import ANSWER, BODY, HEADER, IDLE, Visitor

_LONGEST_HEADER = 32 * 2**10  # bytes of the request line and all header lines; a client of ours sends some 900
_MOST_LINES = 100  # header lines; a client of ours sends 14
_PART = 64 * 2**10  # bytes that the parser gets at once: what it holds of a header grows by copying
_LAST_WORD = 0.1  # seconds for a short answer to leave
_TLS_RECORD = b"\x16\x03"  # what a TLS handshake begins with, and HTTP never

Refused = Callable[[str, bytes, int, str], None]


class HeaderTooLarge(Exception):  # noqa: N818
    """A request has more header lines than are read."""


class Pipelined(Exception):  # noqa: N818
    """A request came before the answer to the one before it."""


class BoundedProtocol(HttpToolsProtocol):
    """Reads no header without end, no two requests at once, and says what it does to its visitor.

    Args:
        visitor: this connection.
        leave: told when it is closed.
        refused: see `server.link.Link`.
        arguments: of uvicorn's protocol.
    """

    def __init__(self, visitor: Visitor, leave: Callable[[Visitor], None], refused: Refused, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._visitor, self._leave, self._refused = visitor, leave, refused
        self._in_header, self._header_bytes = True, 0
        self._begun = self._ended = False

    def connection_made(self, transport: Any) -> None:
        """See asyncio."""
        super().connection_made(transport)
        self.client = self._visitor.address  # a peer that is gone already has no name any more
        self._visitor.hang_up = transport.abort
        self._visitor.enters(IDLE)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._leave(self._visitor)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self._unset_keepalive_if_required()
        if not self._begun and self.scheme == "http" and data.startswith(_TLS_RECORD):
            self._refused(self._visitor.address[0], b"", 0, "TLS")
        self._begun = True
        rest = memoryview(data)
        while rest and self.parser is not None and not self._ended and not self.transport.is_closing():
            size = _PART
            if self._in_header:
                if not self._header_bytes:
                    self._visitor.enters(HEADER)
                size = min(_PART, _LONGEST_HEADER - self._header_bytes)
                self._header_bytes += min(size, len(rest))
            part, rest = rest[:size], rest[size:]
            if (problem := self._feed(part)) or (self._in_header and self._header_bytes >= _LONGEST_HEADER):
                self._break_off(problem or HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def _feed(self, part: memoryview) -> HTTPStatus | None:
        """Parse; what is wrong with it."""
        try:
            self.parser.feed_data(part)
        except httptools.HttpParserUpgrade:
            return HTTPStatus.BAD_REQUEST
        except httptools.HttpParserError as error:
            large = isinstance(error.__context__, HeaderTooLarge)
            return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if large else HTTPStatus.BAD_REQUEST
        return None

    def _break_off(self, status: HTTPStatus) -> None:
        """Answer where no other answer is on its way, and hang up."""
        self._refused(self._visitor.address[0], b"", status, "")
        if self.cycle is None or self.cycle.response_complete:
            text = status.phrase.encode()
            self.transport.write(
                b"HTTP/1.1 %d %b\r\ncontent-type: text/plain\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
                % (status, text, len(text), text)
            )
            self._end()
        else:
            self.transport.abort()

    def _end(self) -> None:
        """Close when the last answer is out, and read nothing more: TLS's goodbye would wait for the other end's."""
        self.transport.pause_reading()
        self._ended = True
        self.loop.call_later(_LAST_WORD, self.transport.abort)

    # -- the parser's callbacks

    def on_message_begin(self) -> None:
        """See httptools."""
        if self.cycle is not None and not self.cycle.response_complete:
            raise Pipelined
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools."""
        if len(self.headers) >= _MOST_LINES:
            raise HeaderTooLarge
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """See httptools."""
        self._in_header = False
        self._visitor.enters(BODY)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        self._visitor.enters(BODY)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """See httptools."""
        self._in_header, self._header_bytes = True, 0
        self._visitor.enters(IDLE if self.cycle.response_complete else ANSWER)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """See uvicorn."""
        if self._in_header:  # the whole request was read
            self._visitor.enters(IDLE)
        super().on_response_complete()
        if not self._visitor.known and not self.cycle.keep_alive and not self._ended:
            self._end()
