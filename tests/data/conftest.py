import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_folder() -> Path:
    folder = os.environ.get("CIESS_DATA")
    if not folder:
        pytest.skip("CIESS_DATA does not name a folder with ml-1m, ml-100k and yelp2018")
    return Path(folder)
