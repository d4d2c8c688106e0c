"""Frames as servers send them, compared with those of a library that other people's clients read."""

import pytest
from websockets.frames import Frame as TheirFrame
from websockets.frames import Opcode

from realtime.frames import Frame


@pytest.mark.parametrize("size", [1, 125, 126, 65_535, 65_536, 300_000])
def test_a_frame_is_the_bytes_that_others_make_of_the_text(size):
    text = "x" * size

    frame = Frame(text)

    assert frame.wire == TheirFrame(Opcode.TEXT, text.encode()).serialize(mask=False)
    assert (frame.text, frame.size) == (text, size)


def test_the_size_counts_bytes_not_letters():
    assert Frame("ä“").size == 5
