import pytest

from sana_streaming.io.size import working_size


@pytest.mark.parametrize(
    ("source", "short", "expected"),
    [
        ((1920, 1080), None, (456, 256)),
        ((1080, 1920), None, (256, 456)),
        ((3840, 2160), 512, (910, 512)),
        ((640, 480), None, (342, 256)),
        ((255, 143), None, (255, 143)),  # small: kept
        ((200, 100), 256, (512, 256)),  # asked for: enlarged
        ((256, 256), None, (256, 256)),
        ((4000, 20), 32, (6400, 32)),
    ],
    ids=str,
)
def test_working_size(source, short, expected):
    assert working_size(*source, short, default=256) == expected
