"""Starts from a reference: its table on its principal axes, cut to size, or the least squares to what it encodes."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ciess.models.backbone import Backbone
from ciess.training.prepared import Prepared


def principal_axes(encoded: Tensor, n_users: int) -> Tensor:
    """Orthonormal axes that users' and items' vectors share, the one that holds most first.

    Eigenvectors of Fu'Fu / |Fu'Fu| + Fi'Fi / |Fi'Fi|, so that either side counts alike.

    Args:
        encoded: F, float32[n, w], users first.
        n_users: number of users.

    Returns:
        float32[w, w], an axis a column.
    """
    total = torch.zeros(encoded.shape[1], encoded.shape[1], dtype=torch.float64, device=encoded.device)
    for part in (encoded[:n_users], encoded[n_users:]):
        gram = part.double().T @ part.double()
        total += gram / gram.norm().clamp(min=torch.finfo(torch.float64).tiny)
    axes: Tensor = torch.linalg.eigh(total)[1].flip(1).float()
    return axes


def own_axes(rows: Tensor) -> Tensor:
    """Orthonormal axes of rows float[m, w], the one that holds most first: float64[w, w], an axis a column.

    A table's first columns on them are its best approximation (Eckart and Young, 1936).
    """
    rows = rows.double()
    axes: Tensor = torch.linalg.eigh(rows.T @ rows)[1].flip(1)
    return axes


def turned_reference(backbone: Backbone, prepared: Prepared, reference: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """A reference's table and its vectors on their shared axes: no dot product changes.

    Args:
        backbone: of dot products, whose columns do not mix.
        prepared: parts of the data.
        reference: `table`, float32[n, 1, max_size], and other parameters.

    Returns:
        table and vectors, float32[n, max_size].
    """
    table = reference["table"][:, 0].to(prepared.device)
    with torch.no_grad():
        encoded = backbone.encode(table, prepared.graph(backbone.normalisation))
        axes = principal_axes(encoded, prepared.n_users)
        return table @ axes, encoded @ axes
