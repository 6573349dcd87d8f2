"""Checks WebSocket frames with the websockets package's own parser."""

from __future__ import annotations

import pytest
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.streams import StreamReader
from websockets.uri import parse_uri

from wds.fanout.framing import deflated_frame, text_frame


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 200_000])
def test_frames_are_what_the_standard_says(size: int) -> None:
    """Each length form is read back whole."""
    reader = StreamReader()
    reader.feed_data(text_frame(b"x" * size))
    parser = Frame.parse(reader.read_exact, mask=False)
    with pytest.raises(StopIteration) as done:
        next(parser)
    frame = done.value.value
    assert (frame.opcode, frame.fin, bytes(frame.data)) == (Opcode.TEXT, True, b"x" * size)


@pytest.mark.parametrize("size", [0, 255, 256, 5000, 200_000])
def test_a_compressed_frame_is_read_without_context(size: int) -> None:
    """Each frame inflates by itself, as the websockets package does it; what is short stays as it is."""
    payload = (b'{"t":"upd","ch":"quote:A"}' * (size // 26 + 1))[:size]
    frames = [deflated_frame(payload), deflated_frame(payload)]
    client = ClientProtocol(parse_uri("ws://x/"), state=OPEN, max_size=None)
    client.extensions = [PerMessageDeflate(True, True, 15, 15)]
    client.receive_data(b"".join(frames))
    assert [bytes(frame.data) for frame in client.events_received() if isinstance(frame, Frame)] == [payload, payload]
    assert len(frames[0]) < max(300, size // 10)
