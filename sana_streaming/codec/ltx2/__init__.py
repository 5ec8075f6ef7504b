"""The LTX-2 video codec, which the released model edits in: 8 frames become one latent, 32 pixels one cell.

The encoder is causal. The decoder is causal too ("causal"), or it was trained to see the future and runs over windows
of 4 latents that overlap and are blended ("chunk_tile"), as the published script does; it then lags 2 latents behind,
and `flush` gives the rest. The first latent of a stream stands for one frame.
"""

from sana_streaming.codec.ltx2.codec import Ltx2Codec, TileState
from sana_streaming.codec.ltx2.layers import CausalState
from sana_streaming.codec.ltx2.published import fold_future, published_config, read_published

__all__ = ["CausalState", "Ltx2Codec", "TileState", "fold_future", "published_config", "read_published"]
