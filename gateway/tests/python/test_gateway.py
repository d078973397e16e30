"""An independent client against a running gateway.

Environment: GATEWAY_BIN (the program), GATEWAY_DATA (its data folder), GATEWAY_PORT. `.ci/python-client`
sets them and starts the gateway.
"""

import contextlib
import functools
import os
import subprocess
import unittest
import uuid

from skein.v1 import frame_pb2, message_pb2, session_pb2
from skein_client import LIVE_STREAM, Closed, Session, dial
from skein_wire import conversation_id, encode_frame, encode_varint

HOST = "127.0.0.1"
PORT = int(os.environ["GATEWAY_PORT"])
DATA = os.environ["GATEWAY_DATA"]
CA = os.path.join(DATA, "dev", "ca.pem")
# TLS alert 120, no_application_protocol, as a QUIC error (RFC 9001 section 4.8).
NO_APPLICATION_PROTOCOL = 0x100 + 120


@functools.cache
def token(user, device):
    command = [os.environ["GATEWAY_BIN"], "token", "--data", DATA, "--user", user]
    command += ["--device", device] if device else []
    made = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return made.stdout.strip()


def person(name):
    """A user that no other test knows."""
    return f"{name}-{uuid.uuid4().hex[:12]}"


def hello(user, device, **fields):
    fields = {"versions": [1], "token": token(user, device), "platform": "aioquic"} | fields
    return session_pb2.Hello(device=device, **fields)


@contextlib.asynccontextmanager
async def online(user, device, **fields):
    async with dial(HOST, PORT, CA) as connection:
        session = Session(connection)
        await session.login(hello(user, device, **fields))
        yield session


def text(to, words, client_msg_id=None, **fields):
    return message_pb2.Send(
        to_user=to,
        client_msg_id=client_msg_id or str(uuid.uuid4()),
        payload=words.encode(),
        **fields,
    )


async def say(session, send):
    session.send(send=send)
    return await session.expect("send_ack", lambda ack: ack.client_msg_id == send.client_msg_id)


class Login(unittest.IsolatedAsyncioTestCase):
    async def test_welcome(self):
        alice = person("alice")
        async with online(alice, "phone") as session:
            welcome = session.welcome
            self.assertEqual((welcome.version, welcome.user, welcome.device), (1, alice, "phone"))
            self.assertGreater(welcome.heartbeat_interval_ms, 0)
            self.assertGreater(welcome.limits.max_frame_bytes, welcome.limits.max_payload_bytes)
            self.assertGreater(welcome.token_expires_ms, welcome.server_time_ms)
            self.assertNotEqual(welcome.store_epoch, 0)
            session.send(ping={"nonce": 7})
            await session.expect("pong", lambda pong: pong.nonce == 7)

    async def test_bye_closes_with_ok(self):
        async with online(person("alice"), "phone") as session:
            session.send(bye={})
            closed = await session.connection.until_closed()
            self.assertEqual((closed.code, closed.by_application), (0, True))

    async def test_wrong_alpn(self):
        with self.assertRaises(Closed) as caught:
            async with dial(HOST, PORT, CA, alpn="skein/999"):
                pass
        self.assertEqual(caught.exception.code, NO_APPLICATION_PROTOCOL)

    async def refused(self, data, code):
        """These bytes at the start of the live stream end the connection with this code."""
        async with dial(HOST, PORT, CA) as connection:
            connection.write(LIVE_STREAM, data)
            closed = await connection.until_closed()
            self.assertEqual((closed.code, closed.by_application), (code, True), closed)

    async def test_numbered_closes(self):
        def first(**kind):
            return encode_frame(frame_pb2.ClientFrame(**kind))

        alice = person("alice")
        for name, data, code in (
            ("a token that is none", first(hello=hello(alice, "phone", token="a.b.c")), 110),
            ("a token of a gateway elsewhere", first(hello=hello(alice, "phone", token=FOREIGN)), 110),
            ("another device", first(hello=hello(alice, "phone", token=token(alice, "pad"))), 113),
            ("a version of the future", first(hello=hello(alice, "phone", versions=[99])), 101),
            ("no Hello", first(ping={"nonce": 1}), 104),
            ("a frame over the limit", encode_varint(65537), 102),
            ("a length that is none", b"\x80" * 6, 103),
            ("no protobuf", b"\x02\xff\xff", 103),
        ):
            with self.subTest(name):
                await self.refused(data, code)

    async def test_a_second_hello(self):
        alice = person("alice")
        async with online(alice, "phone") as session:
            session.send(hello=hello(alice, "phone"))
            self.assertEqual((await session.connection.until_closed()).code, 100)

    async def test_the_same_device_replaces_its_older_connection(self):
        alice = person("alice")
        async with online(alice, "phone") as older, online(alice, "phone") as newer:
            self.assertEqual((await older.connection.until_closed()).code, 120)
            await newer.settle()

    async def test_frames_in_pieces_and_from_the_future(self):
        alice, bob = person("alice"), person("bob")
        async with online(alice, "phone") as session:
            send = text(bob, "in pieces")
            frame = encode_frame(frame_pb2.ClientFrame(send=send))
            unknown_kind = b"\x04\xfa\x3e\x01x"  # field 1007, one byte
            for byte in b"\x00" + unknown_kind + frame:
                session.connection.write(LIVE_STREAM, bytes([byte]))
            ack = await session.expect("send_ack")
            self.assertEqual((ack.client_msg_id, ack.seq), (send.client_msg_id, 1))

    async def test_refresh(self):
        alice = person("alice")
        async with online(alice, "phone") as session:
            session.send(refresh_token={"token": token(alice, "phone")})
            refreshed = await session.expect("token_refreshed")
            self.assertGreater(refreshed.token_expires_ms, session.welcome.server_time_ms)
            await session.settle()
        mallory = person("mallory")
        for name, wrong, code in (
            ("a token that is none", "a.b.c", 110),
            ("somebody else's", token(mallory, "phone"), 110),
            ("another device's", token(alice, "pad"), 113),
        ):
            with self.subTest(name):
                async with online(alice, "phone") as session:
                    session.send(refresh_token={"token": wrong})
                    self.assertEqual((await session.connection.until_closed()).code, code)


class Messages(unittest.IsolatedAsyncioTestCase):
    async def test_a_message_goes_to_everyone_but_the_session_that_sent_it(self):
        alice, bob = person("alice"), person("bob")
        async with (
            online(alice, "phone") as phone,
            online(alice, "pad") as pad,
            online(bob, "laptop") as laptop,
        ):
            ack = await say(phone, text(bob, "Hi, Bob!", content_type="text/plain"))
            self.assertEqual((ack.conversation, ack.seq), (conversation_id(alice, bob), 1))
            for other in (pad, laptop):
                (message,) = (await other.expect("push")).messages
                self.assertEqual(message.payload, b"Hi, Bob!")
                self.assertEqual(message.content_type, "text/plain")
                self.assertEqual((message.sender, message.sender_device), (alice, "phone"))
                self.assertEqual(message.client_msg_id, ack.client_msg_id)
                self.assertEqual((message.conversation, message.seq), (ack.conversation, 1))
                self.assertEqual(message.time_ms, ack.time_ms)
            await phone.settle()
            self.assertEqual(phone.seen("push"), [])

    async def test_delivered_and_read_come_back_as_receipts(self):
        alice, bob = person("alice"), person("bob")
        async with (
            online(alice, "phone") as phone,
            online(bob, "laptop") as laptop,
            online(bob, "watch") as watch,
        ):
            ack = await say(phone, text(bob, "seen?"))
            await laptop.expect("push")
            cursor = {"conversation": ack.conversation, "seq": ack.seq}
            laptop.send(delivered={"cursors": [cursor]})
            receipt = await phone.expect("receipt")
            self.assertEqual(receipt.kind, message_pb2.DELIVERED)
            self.assertEqual((receipt.conversation, receipt.user, receipt.seq), (ack.conversation, bob, 1))
            laptop.send(read={"cursors": [cursor]})
            for other in (phone, watch):
                receipt = await other.expect("receipt", lambda r: r.kind == message_pb2.READ)
                self.assertEqual((receipt.user, receipt.seq), (bob, 1))
            (head,) = await laptop.heads()
            self.assertEqual((head.seq, head.delivered, head.read), (1, 1, 1))

    async def test_a_repeated_send_gets_the_first_answer(self):
        alice, bob = person("alice"), person("bob")
        send = text(bob, "once")
        async with online(alice, "phone") as phone:
            first = await say(phone, send)
            self.assertEqual(await say(phone, send), first)
            await say(phone, text(bob, "another"))
        again = message_pb2.Send()
        again.CopyFrom(send)
        again.retry_after_seq = 0
        async with online(alice, "phone") as phone, online(bob, "laptop") as laptop:
            self.assertEqual(await say(phone, again), first)
            # The same id from another device is another message.
            async with online(alice, "pad") as pad:
                self.assertEqual((await say(pad, send)).seq, 3)
            (head,) = await laptop.heads()
            self.assertEqual(head.seq, 3)

    async def test_sends_under_way_together_keep_their_order(self):
        alice, bob = person("alice"), person("bob")
        async with online(alice, "phone") as phone, online(bob, "laptop") as laptop:
            sends = [text(bob, f"{n}") for n in range(phone.welcome.limits.max_unacked_sends)]
            for send in sends:
                phone.send(send=send)
            for n, send in enumerate(sends):
                ack = await phone.expect("send_ack", lambda a: a.client_msg_id == send.client_msg_id)
                self.assertEqual(ack.seq, n + 1)
            seen = []
            while len(seen) < len(sends):
                seen += (await laptop.expect("push")).messages
            self.assertEqual([m.seq for m in seen], list(range(1, len(sends) + 1)))
            self.assertEqual([m.payload.decode() for m in seen], [f"{n}" for n in range(len(sends))])

    async def test_refused_sends(self):
        alice, bob = person("alice"), person("bob")
        async with online(alice, "phone") as phone:
            limits = phone.welcome.limits
            nobody = message_pb2.Send(client_msg_id="nobody", payload=b"x")
            stranger = message_pb2.Send(
                client_msg_id="stranger", conversation=conversation_id(bob, "eve"), payload=b"x"
            )
            for send, code in (
                (text(bob, "x" * (limits.max_payload_bytes + 1), "long"), 202),
                (nobody, 200),
                (stranger, 201),
                (text("", "x", "empty"), 200),
            ):
                phone.send(send=send)
                error = await phone.expect("error")
                self.assertEqual((error.client_msg_id, error.code), (send.client_msg_id, code))
                self.assertFalse(error.retry)
            ack = await say(phone, text(bob, "x" * limits.max_payload_bytes))
            self.assertEqual(ack.seq, 1)


class CatchingUp(unittest.IsolatedAsyncioTestCase):
    async def test_what_was_missed_is_found_by_heads_and_ranges(self):
        alice, bob, carol = person("alice"), person("bob"), person("carol")
        async with online(alice, "phone") as phone, online(carol, "desk") as desk:
            for n in range(1, 31):
                await say(phone, text(bob, f"alice {n}"))
            await say(desk, text(bob, "carol 1"))
        async with online(bob, "laptop") as laptop:
            heads = {head.conversation: head for head in await laptop.heads()}
            with_alice, with_carol = conversation_id(alice, bob), conversation_id(bob, carol)
            self.assertEqual({c: h.seq for c, h in heads.items()}, {with_alice: 30, with_carol: 1})
            head = heads[with_alice]
            self.assertEqual((head.first_seq, head.delivered, head.read), (1, 0, 0))
            self.assertEqual([member.user for member in head.members], [alice])
            (one,) = await laptop.heads([with_carol, conversation_id(alice, carol)])
            self.assertEqual(one.conversation, with_carol)

            forward, backward, nobody, stranger, last = await laptop.pull(
                {"conversation": with_alice, "from": 1},
                {"with_user": alice, "from": 1, "to": 20, "backward": True, "limit": 5},
                {"with_user": person("nobody"), "from": 1},
                {"conversation": conversation_id(alice, carol), "from": 1},
                {"conversation": with_carol, "from": 1, "to": 1},
            )
            messages = [m for page in forward for m in page.messages]
            self.assertEqual([m.payload.decode() for m in messages], [f"alice {n}" for n in range(1, 31)])
            self.assertEqual([m.seq for m in messages], list(range(1, 31)))
            self.assertEqual((forward[-1].head, forward[-1].first_seq), (30, 1))
            seqs = [m.seq for page in backward for m in page.messages]
            self.assertEqual(seqs, [20, 19, 18, 17, 16])
            self.assertEqual([(p.error_code, p.head, len(p.messages)) for p in nobody], [(0, 0, 0)])
            self.assertEqual([page.error_code for page in stranger], [201])
            self.assertEqual([m.payload for page in last for m in page.messages], [b"carol 1"])

    async def test_hello_with_positions_is_answered_with_behind(self):
        alice, bob = person("alice"), person("bob")
        async with online(alice, "phone") as phone:
            async with online(bob, "laptop") as laptop:
                ack = await say(phone, text(bob, "one"))
                await laptop.expect("push")
                epoch = laptop.welcome.store_epoch
            await say(phone, text(bob, "two"))
            have = [{"conversation": ack.conversation, "seq": 1}]
            async with online(bob, "laptop", store_epoch=epoch, have=have) as laptop:
                behind = await laptop.expect("behind")
                self.assertEqual([(c.conversation, c.seq) for c in behind.heads], [(ack.conversation, 2)])
                receipt = await phone.expect("receipt")
                self.assertEqual((receipt.user, receipt.seq), (bob, 1))
                ((page,),) = await laptop.pull({"conversation": ack.conversation, "from": 2})
                self.assertEqual([m.payload for m in page.messages], [b"two"])

    async def test_long_answers_come_in_pages(self):
        alice, bob = person("alice"), person("bob")
        words = "y" * 20_000
        async with online(alice, "phone") as phone:
            for _ in range(10):
                await say(phone, text(bob, words))
            (pages,) = await phone.pull({"with_user": bob, "from": 1})
            self.assertGreater(len(pages), 1)
            self.assertEqual([m.seq for page in pages for m in page.messages], list(range(1, 11)))

    async def test_requests_in_the_wrong_place(self):
        async with online(person("alice"), "phone") as session:
            session.send(heads_request={})
            self.assertEqual((await session.connection.until_closed()).code, 100)
        async with online(person("alice"), "phone") as session:
            ping = encode_frame(frame_pb2.ClientFrame(ping={"nonce": 1}))
            session.connection.write(session.connection.open_stream(), ping, end=True)
            self.assertEqual((await session.connection.until_closed()).code, 100)

    async def test_an_unknown_request_is_refused_and_the_session_lives(self):
        async with online(person("alice"), "phone") as session:
            stream = session.connection.open_stream()
            session.connection.write(stream, b"\x04\xfa\x3e\x01x", end=True)
            frame = await session.connection.next_frame(stream)
            self.assertEqual(frame.error.code, 200)
            self.assertIsNone(await session.connection.next_frame(stream))
            await session.settle()


# Signed with a key that no gateway has: {"alg":"EdDSA"}, a subject, an end in the year 2100.
FOREIGN = (
    "eyJhbGciOiJFZERTQSJ9."
    "eyJzdWIiOiJhbGljZSIsImF1ZCI6InNrZWluIiwiZXhwIjo0MTAyNDQ0ODAwfQ."
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)


if __name__ == "__main__":
    unittest.main()
