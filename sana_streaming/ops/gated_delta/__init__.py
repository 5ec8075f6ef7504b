"""The frame-wise gated delta rule."""

from sana_streaming.ops.gated_delta.reference import gated_delta

__all__ = ["gated_delta"]
