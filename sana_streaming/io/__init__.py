"""Video in and out. Readers and writers know frames, not models.

This module is light; `readers` and `writers` bring the video library with them.
"""

from .frame import Color, Frame, Reader, Sound, VideoError, VideoInfo, Writer, meant

__all__ = ["Color", "Frame", "Reader", "Sound", "VideoError", "VideoInfo", "Writer", "meant"]
