"""A camera on the network, in a process of its own: sends pictures that become brighter to an RTSP address.

python publisher.py ADDRESS COUNT HOLD: so many pictures, as soon as somebody listens; it then stays connected, and
silent, for HOLD seconds. Who hangs up before the last picture is sent all of them again.
"""

import sys
import time
from fractions import Fraction
from typing import Any

import av
import numpy as np

RATE = 25


def publish(address: str, count: int, hold: float) -> None:
    with av.open(address, "w", format="rtsp", options={"rtsp_transport": "tcp"}) as output:
        stream: Any = output.add_stream("libx264", rate=RATE, options={"bf": "0", "tune": "zerolatency", "g": "5"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        output.start_encoding()
        for index in range(count):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 16 + 5 * index % 200, np.uint8), format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, RATE)
            output.mux(stream.encode(picture))
            time.sleep(1 / RATE)
        time.sleep(hold)


if __name__ == "__main__":
    while True:
        try:
            publish(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
        except av.error.FFmpegError:  # nobody listens, or nobody any more
            time.sleep(0.05)
        else:
            break
