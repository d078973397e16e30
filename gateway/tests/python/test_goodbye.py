"""The gateway's end as a client sees it. Runs last: it stops the gateway (GATEWAY_PID)."""

import os
import signal
import unittest

from skein_client import LIVE_STREAM, dial
from skein_wire import encode_frame
from skein.v1 import frame_pb2
from test_gateway import CA, HOST, PORT, hello, online, person, say, text


class Goodbye(unittest.IsolatedAsyncioTestCase):
    async def test_a_stop_is_announced_and_work_under_way_is_finished(self):
        alice, bob = person("alice"), person("bob")
        # Before the stop: afterwards `skein token` is the only thing that still works.
        greeting = encode_frame(frame_pb2.ClientFrame(hello=hello(bob, "laptop")))
        async with online(alice, "phone") as phone:
            os.kill(int(os.environ["GATEWAY_PID"]), signal.SIGTERM)
            go_away = await phone.expect("go_away")
            self.assertEqual(go_away.code, 123)
            self.assertEqual((await say(phone, text(bob, "one last word"))).seq, 1)
            async with dial(HOST, PORT, CA) as late:
                late.write(LIVE_STREAM, greeting)
                self.assertEqual((await late.until_closed()).code, 123)
            closed = await phone.connection.until_closed()
            self.assertEqual((closed.code, closed.by_application), (123, True))


if __name__ == "__main__":
    unittest.main()
