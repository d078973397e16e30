"""A small Skein client on aioquic, written from docs/protocol.md."""

import asyncio
import ssl
from contextlib import asynccontextmanager

from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StreamDataReceived, StreamReset

from skein.v1 import frame_pb2
from skein_wire import DEFAULT_MAX_FRAME_BYTES, Decoder, encode_frame

ALPN = "skein/1"
LIVE_STREAM = 0
# How long anything may take before a test gives up; nothing is measured with it.
PATIENCE = 20


class Closed(Exception):
    """The connection has ended."""

    def __init__(self, code, frame_type, reason):
        super().__init__(f"closed with {code}: {reason}")
        self.code = code
        self.reason = reason
        # A transport close names the frame that caused it; an application's close has none.
        self.by_application = frame_type is None


class Connection(QuicConnectionProtocol):
    """Streams of one connection as queues of frames."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.ended = asyncio.get_running_loop().create_future()
        self.decoders = {}
        self.frames = {}

    def quic_event_received(self, event):
        if isinstance(event, StreamDataReceived):
            queue = self.queue(event.stream_id)
            decoder = self.decoders.setdefault(event.stream_id, Decoder())
            for body in decoder.feed(event.data):
                queue.put_nowait(frame_pb2.ServerFrame.FromString(body))
            if event.end_stream:
                queue.put_nowait(None)
        elif isinstance(event, StreamReset):
            self.queue(event.stream_id).put_nowait(None)
        elif isinstance(event, ConnectionTerminated) and not self.ended.done():
            self.ended.set_result(
                Closed(event.error_code, event.frame_type, event.reason_phrase)
            )

    def queue(self, stream):
        return self.frames.setdefault(stream, asyncio.Queue())

    def write(self, stream, data, end=False):
        self._quic.send_stream_data(stream, data, end)
        self.transmit()

    def open_stream(self):
        return self._quic.get_next_available_stream_id()

    async def next_frame(self, stream):
        """The next frame, None at the end of the stream; raises Closed when the connection is."""
        queue = self.queue(stream)
        if queue.empty():
            getter = asyncio.ensure_future(queue.get())
            done, _ = await asyncio.wait(
                [getter, self.ended], timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED
            )
            if getter in done:
                return getter.result()
            getter.cancel()
            if self.ended in done:
                raise self.ended.result()
            raise TimeoutError(f"no frame on stream {stream} in {PATIENCE} s")
        return queue.get_nowait()

    async def until_closed(self):
        return await asyncio.wait_for(asyncio.shield(self.ended), PATIENCE)


class Session:
    """One connected device."""

    def __init__(self, connection):
        self.connection = connection
        self.welcome = None
        self.put_aside = []

    def send(self, **kind):
        """Writes a frame to the live stream: send(ping=Ping(nonce=1))."""
        self.connection.write(LIVE_STREAM, encode_frame(frame_pb2.ClientFrame(**kind)))

    async def login(self, hello):
        self.send(hello=hello)
        frame = await self.connection.next_frame(LIVE_STREAM)
        assert frame.WhichOneof("kind") == "welcome", frame
        self.welcome = frame.welcome
        return self.welcome

    async def expect(self, kind, wanted=lambda content: True):
        """The next live frame of this kind; others are kept for later."""
        for place, frame in enumerate(self.put_aside):
            if frame.WhichOneof("kind") == kind and wanted(getattr(frame, kind)):
                del self.put_aside[place]
                return getattr(frame, kind)
        while True:
            frame = await self.connection.next_frame(LIVE_STREAM)
            assert frame is not None, "the gateway ended the live stream"
            content = getattr(frame, kind)
            if frame.WhichOneof("kind") == kind and wanted(content):
                return content
            self.put_aside.append(frame)

    async def settle(self):
        """A round trip: what the gateway wrote to this stream before the Pong has come."""
        self.send(ping={"nonce": 4711})
        await self.expect("pong", lambda pong: pong.nonce == 4711)

    def seen(self, kind):
        """Frames of a kind that came and were not asked for."""
        return [getattr(f, kind) for f in self.put_aside if f.WhichOneof("kind") == kind]

    async def bulk(self, **kind):
        """One request on a stream of its own; all frames of the answer."""
        stream = self.connection.open_stream()
        self.connection.write(stream, encode_frame(frame_pb2.ClientFrame(**kind)), end=True)
        answer = []
        while (frame := await self.connection.next_frame(stream)) is not None:
            assert frame.ByteSize() <= DEFAULT_MAX_FRAME_BYTES
            answer.append(frame)
        return answer

    async def heads(self, conversations=()):
        pages = await self.bulk(heads_request={"conversations": conversations})
        assert [p.heads_page.is_end for p in pages] == [False] * (len(pages) - 1) + [True], pages
        return [head for page in pages for head in page.heads_page.heads]

    async def pull(self, *ranges):
        """The pages of each range, in order."""
        pages = [f.pull_page for f in await self.bulk(pull_request={"ranges": ranges})]
        answer = []
        for place in range(len(ranges)):
            mine = [page for page in pages if page.range == place]
            assert [p.is_end for p in mine] == [False] * (len(mine) - 1) + [True], pages
            answer.append(mine)
        assert [page.range for page in pages] == sorted(page.range for page in pages), pages
        return answer


@asynccontextmanager
async def dial(host, port, ca, alpn=ALPN):
    """A connection with its handshake done."""
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=[alpn], idle_timeout=60, server_name="localhost"
    )
    configuration.verify_mode = ssl.CERT_REQUIRED
    configuration.load_verify_locations(cafile=ca)
    made = []

    def create(*args, **kwargs):
        made.append(Connection(*args, **kwargs))
        return made[0]

    try:
        async with connect(
            host, port, configuration=configuration, create_protocol=create
        ) as connection:
            yield connection
    except ConnectionError as error:
        # aioquic does not say why the handshake failed; the connection knows.
        if made and made[0].ended.done():
            raise made[0].ended.result() from error
        raise
