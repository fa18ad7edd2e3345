"""The backbones (section 3.1), by the name that configs use."""

from collections.abc import Callable
from typing import Any

from ciess.models.backbone import Backbone
from ciess.models.items import Items
from ciess.models.lightgcn import LightGCN
from ciess.models.ncf import NCF
from ciess.models.ngcf import NGCF

BACKBONES: dict[str, Callable[[Any, int, int, int], Backbone]] = {
    "lightgcn": LightGCN,
    "ngcf": NGCF,
    "ncf": NCF,
    "items": Items,
}
"""Name -> class; called with (model config, n_users, n_items, max_size)."""

__all__ = ["BACKBONES", "Backbone"]
