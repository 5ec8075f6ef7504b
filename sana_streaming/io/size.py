"""Which size a video is edited at."""


def working_size(width: int, height: int, short: int | None, default: int) -> tuple[int, int]:
    """(width, height) with the source's aspect whose short side is `short`.

    Without a wish (`short` is None) the short side is `default`, and a smaller video keeps its size: nothing is
    enlarged unless asked. A scaled side is rounded to even, as video files want. The model's grid is coarser still:
    chunks are padded to it by repeating the edge and cut back after, so that the aspect stays and nothing is stretched.
    """
    if short is None and min(width, height) <= default:
        return width, height
    scale = (short or default) / min(width, height)
    return _even(width * scale), _even(height * scale)


def _even(side: float) -> int:
    return max(2, 2 * round(side / 2))
