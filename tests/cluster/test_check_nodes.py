"""Before anything is started, every node says whether it can read the data by itself."""

from pathlib import Path
from typing import Any

import pytest

from ciess.cluster.shared_data import SharedData, check_nodes, this_node
from ciess.config.data import DataConfig
from ciess.errors import DataError

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(200)]


def test_a_node_that_does_not_see_the_data_is_named(local_ray: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "pairs.csv")
    with pytest.raises(DataError) as refused:
        check_nodes(SharedData("0" * 64, None, path, DataConfig()))
    text = str(refused.value)
    assert text.startswith(f"Node {this_node()} cannot read the data: {path} does not exist.")
    assert text.endswith(
        "With --read-data-on workers every node must see the same path; give a shared folder or a URI, or leave the "
        "option out to send the data through Ray."
    )
