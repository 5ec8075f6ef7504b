from pathlib import Path

import pytest
import torch

GOLDEN = Path(__file__).parents[2] / "shared" / "golden"

torch.set_num_threads(
    1
)  # test tensors are tiny: on a busy machine two threads wait for each other, thirty times slower


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", type=Path, default=GOLDEN, help="folder with the whole set of golden numbers")


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Path:
    """The whole set of golden numbers, too large for the repository; a small part of it lies beside the tests."""
    folder: Path = request.config.getoption("--golden")
    if not folder.is_dir():
        pytest.skip(f"the whole golden set is not here ({folder}); pass --golden FOLDER")
    return folder


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
