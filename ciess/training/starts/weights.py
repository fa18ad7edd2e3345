"""From a start and a mask to the weights that a training begins with."""

import functools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ciess.config.models import WITHOUT_USERS
from ciess.config.recommender import RecommenderConfig
from ciess.config.starts import ALLOWED, start_refused
from ciess.data import Interactions
from ciess.errors import InputError
from ciess.masks.mask import Mask, RowSide, stored_side
from ciess.masks.ragged import kept_entries
from ciess.models import Backbone
from ciess.models.lightgcn import LightGCN
from ciess.models.ngcf import NGCF
from ciess.models.one_sided import one_sided
from ciess.training.loop import build
from ciess.training.prepared import Prepared
from ciess.training.starts.projected import own_axes, principal_axes, turned_reference
from ciess.training.starts.solver import Operator, masked_least_squares
from ciess.training.starts.spectral import powers, spectral_vectors
from ciess.training.starts.start import Start

RIDGE = 1e-4
"""Of the least squares, after the target was scaled to a mean square of 1 on the kept entries."""

STEPS = 20
"""Most steps of the least squares; they end once a step brings less than a thousandth."""

JUDGED_STEPS = 3
"""Steps of a start that is judged untrained: quality of 21 masks of MovieLens-1M differs by .0001 from that of 20 steps
(at most .0007 where masks differ by .02; rank correlation 0.96 to 1.00 within a budget)."""


def initial_weights(
    data: Interactions,
    prepared: Prepared,
    config: RecommenderConfig,
    mask: Mask,
    start: Start,
    seed: int,
    reference: Mapping[str, Tensor] | None = None,
    steps: int = STEPS,
) -> dict[str, Tensor]:
    """What a training begins with, for `FitRequest.initial`: nothing where that is drawn from the seed.

    Args:
        data: what is trained on.
        prepared: its shared parts.
        config: settings of the recommender.
        mask: which entries exist.
        start: how.
        seed: of what a start draws.
        reference: weights of a full table trained on these data, which `cut` and `projected` need.
        steps: most steps of the least squares.

    Returns:
        `table` as float32[n, tables, max_size] and the backbone's other parameters by name.

    Raises:
        InputError: a start that the backbone does not allow, or that lacks its reference.
    """
    return stacked_weights(data, prepared, config, [mask], [start], seed, reference, steps)[0]


def check_start(backbone: str, name: str) -> None:
    """Raise InputError for a start that the backbone does not allow."""
    if name not in ALLOWED[backbone]:
        raise InputError(start_refused(backbone, name))


def stacked_weights(
    data: Interactions,
    prepared: Prepared,
    config: RecommenderConfig,
    masks: Sequence[Mask],
    starts: Sequence[Start],
    seed: int,
    reference: Mapping[str, Tensor] | None = None,
    steps: int = STEPS,
) -> list[dict[str, Tensor]]:
    """What `initial_weights` gives for each of several masks; for lightgcn columns of one solution.

    As columns know nothing of each other, the bits are the same on a CPU.

    Args:
        data: what is trained on.
        prepared: its shared parts.
        config: settings of the recommender.
        masks: which entries exist, a mask a table.
        starts: how, one a mask.
        seed: of what a start draws.
        reference: weights of a full table trained on these data, which `cut` and `projected` need.
        steps: most steps of the least squares.

    Returns:
        weights, a mapping a mask.

    Raises:
        InputError: a start that the backbone does not allow, or that lacks its reference.
    """
    for start in dict.fromkeys(starts):
        check_start(config.backbone, start.name)
        if start.name in ("cut", "projected") and "table" not in (reference or {}):
            raise InputError(
                f"start {start.name} begins from a reference, but none was given. Expected the weights of a full table "
                "trained on the same data. Give them, or choose start spectral or fresh."
            )
    with torch.no_grad():
        if config.backbone in WITHOUT_USERS:
            own = {start: _items(prepared, config, start, reference or {}) for start in dict.fromkeys(starts)}
            return [own[start] for start in starts]
        backbone, fresh = build(data, config, seed)
        if config.backbone == "lightgcn":
            return _lightgcn(backbone.to(prepared.device), prepared, masks, starts, reference or {}, steps)
        # Of these a mask cuts the same weights, whatever it keeps.
        known = {start: _uncut(backbone, prepared, start, reference or {}, fresh) for start in dict.fromkeys(starts)}
        return [known[start] for start in starts]


def _uncut(
    backbone: Backbone, prepared: Prepared, start: Start, reference: Mapping[str, Tensor], fresh: Tensor
) -> dict[str, Tensor]:
    if start.name == "fresh":
        return {}
    if isinstance(backbone, NGCF):
        return _ngcf(backbone, prepared, start, reference)
    return _ncf(backbone, prepared, start, reference, fresh)


def _lightgcn(
    backbone: Backbone,
    prepared: Prepared,
    masks: Sequence[Mask],
    starts: Sequence[Start],
    reference: Mapping[str, Tensor],
    steps: int,
) -> list[dict[str, Tensor]]:
    rank = masks[0].max_size
    found: dict[int, dict[str, Tensor]] = {}
    groups: dict[tuple[RowSide | None, float], list[int]] = {}
    ends: dict[Start, tuple[Tensor, Tensor]] = {}
    for place, (mask, start) in enumerate(zip(masks, starts, strict=True)):
        if start.name == "fresh":
            found[place] = {}
            continue
        if start not in ends:
            if start.name == "spectral":
                target = spectral_vectors(prepared, start, rank)
                ends[start] = (target, target)
            else:
                ends[start] = turned_reference(backbone, prepared, reference)
        if start.name == "cut":
            found[place] = {"table": ends[start][0][:, None].cpu()}
        else:
            groups.setdefault((stored_side(mask, prepared.n_users), start.item_weight), []).append(place)
    for (side, item_weight), places in groups.items():
        kept = [_entries(masks[place]).to(prepared.device) for place in places]
        begins, targets = zip(*(ends[starts[place]] for place in places), strict=True)
        solved = _solved(backbone, prepared, side, kept, begins, targets, item_weight, steps)
        for place, part in zip(places, solved, strict=True):
            table = torch.zeros(len(part), 1, rank)
            table[:, 0, : part.shape[1]] = part.cpu()
            found[place] = {"table": table}
    return [found[place] for place in range(len(masks))]


def _entries(mask: Mask) -> Tensor:
    return torch.from_numpy(kept_entries(mask, 1, max(1, mask.width)))


def _solved(
    backbone: Backbone,
    prepared: Prepared,
    side: RowSide | None,
    kept: Sequence[Tensor],
    begins: Sequence[Tensor],
    targets: Sequence[Tensor],
    item_weight: float,
    steps: int,
) -> list[Tensor]:
    """Least squares of masks bool[n, w] side by side, each from a table to vectors: float32[n, w] each."""
    assert isinstance(backbone, LightGCN)
    graph = prepared.graph(backbone.normalisation)
    assert graph is not None
    weights = None
    if item_weight != 1.0:
        weights = torch.ones(prepared.n_users + prepared.n_items, device=prepared.device)
        weights[prepared.n_users :] = item_weight
    widths, spreads = [own.shape[1] for own in kept], []
    for own, target in zip(kept, targets, strict=True):
        # The ridge is relative to a mean square of 1.
        entries = target[:, : own.shape[1]][own]
        spread = entries.square().mean().sqrt() if len(entries) else target.new_zeros(())
        spreads.append(torch.where(spread > 0, spread, 1.0))
    if side is None:
        rows, transpose = slice(None), None
        propagate: Operator = functools.partial(backbone.encode, graph=graph)
    else:
        half, layers = one_sided(graph, prepared.n_users, side), backbone.config.layers
        rows = half.rows
        propagate, transpose = (
            functools.partial(half.forward, layers=layers),
            functools.partial(half.backward, layers=layers),
        )
    parts = list(zip(widths, spreads, strict=True))
    solution = masked_least_squares(
        propagate,
        torch.cat([target[:, :width] / spread for target, (width, spread) in zip(targets, parts, strict=True)], 1),
        torch.cat([own[rows] for own in kept], 1),
        torch.cat([begin[rows, :width] / spread for begin, (width, spread) in zip(begins, parts, strict=True)], 1),
        RIDGE,
        weights,
        steps,
        transpose=transpose,
    )
    tables = []
    for part, spread in zip(solution.table.split(widths, 1), spreads, strict=True):
        table = part.new_zeros(len(kept[0]), part.shape[1])
        table[rows] = part * spread
        tables.append(table)
    return tables


def _items(
    prepared: Prepared, config: RecommenderConfig, start: Start, reference: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    if start.name == "fresh":
        return {}
    if start.name != "spectral":
        # A user's vector is linear in items' rows, so axes of these rows serve both sides.
        table = reference["table"][:, 0]
        axes = own_axes(table[prepared.n_users :]).float()
        return {**reference, "table": (table @ axes)[:, None]}
    return spectral_items(prepared, start, config.max_size)


def spectral_items(prepared: Prepared, start: Start, rank: int) -> dict[str, Tensor]:
    """Weights of the backbone `items` from a spectral start, without rows of users.

    Args:
        prepared: parts of the data that items' axes and degrees are of.
        start: a spectral one.
        rank: columns.

    Returns:
        `table`, float32[n_items, 1, rank], and two numbers an item.
    """
    axes = prepared.axes(start.exponent, rank, with_users=False)
    _, scales = prepared.degree_scales()
    return {
        "table": (axes.items * powers(axes.values, start.power))[:, None].cpu(),
        "history_weight": (scales ** (2 * start.exponent)).cpu(),
        "item_weight": (scales ** (-2 * start.item_exponent)).cpu(),
    }


def _ngcf(backbone: Backbone, prepared: Prepared, start: Start, reference: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rows that are the vectors' own first part; or the reference's columns, those of most energy first."""
    if start.name == "spectral":
        return {"table": spectral_vectors(prepared, start, backbone.max_size)[:, None].cpu()}
    order = reference["table"][:, 0].square().sum(0).argsort(descending=True, stable=True)
    first = {name: reference[name][order] for name in ("neighbour_weight.0", "interaction_weight.0")}
    return {**reference, **first, "table": reference["table"][:, :, order]}


def _ncf(
    backbone: Backbone, prepared: Prepared, start: Start, reference: Mapping[str, Tensor], fresh: Tensor
) -> dict[str, Tensor]:
    """GMF rows whose dot products are the scores, beside a tower that adds nothing yet; or the reference, turned.

    h is folded into the users' GMF rows; the tower's rows are turned apart, its first layer back. As nothing
    propagates, the least squares of `projected` are this cut.
    """
    n_users = prepared.n_users
    weights = dict(backbone.named_parameters())
    if start.name == "spectral":
        rows = spectral_vectors(prepared, start, backbone.max_size).cpu()
        return {
            "table": torch.stack([rows, fresh[:, 1]], dim=1),
            "gmf_output": torch.ones_like(weights["gmf_output"]),
            "tower_output": torch.zeros_like(weights["tower_output"]),
        }
    gmf, tower = reference["table"].unbind(1)
    gmf = torch.cat([gmf[:n_users] * reference["gmf_output"], gmf[n_users:]])
    gmf_axes, tower_axes = principal_axes(gmf, n_users), principal_axes(tower, n_users)
    return {
        **reference,
        "table": torch.stack([gmf @ gmf_axes, tower @ tower_axes], dim=1),
        "gmf_output": torch.ones_like(reference["gmf_output"]),
        "user_half": tower_axes.T @ reference["user_half"],
        "item_half": tower_axes.T @ reference["item_half"],
    }
