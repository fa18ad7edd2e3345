"""ESAPN (Liu et al., SIGIR 2020): sizes from a fixed set, found by policies that enlarge embeddings as data streams in.

The recommender of the published code is a click predictor; here the backbone takes its place (section 3.1 compares all
methods on the same backbones).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from ciess.config.fit import FitConfig
from ciess.data import Interactions
from ciess.devices import cpu_threads, resolve_device
from ciess.errors import InputError
from ciess.masks.mask import PrefixMask
from ciess.methods.esapn.size_growth import SizeGrowth
from ciess.methods.journal import Journal
from ciess.methods.method import both_sides
from ciess.tables.spec import TableSpec
from ciess.training.prepared import prepare


def check_sizes(config: FitConfig) -> None:
    """Refuse sizes that the table has no columns for, and a backbone whose users have no rows.

    Args:
        config: settings of the fit.

    Raises:
        InputError: either.
    """
    both_sides(config)
    sizes = config.esapn.sizes
    if sizes[-1] > config.max_size:
        fitting = [str(size) for size in sizes if size <= config.max_size]
        advice = f"esapn.sizes of {', '.join(fitting)}" if len(fitting) > 1 else "two or more smaller esapn.sizes"
        raise InputError(
            f"The sizes of ESAPN are {', '.join(map(str, sizes))}, but max_size is {config.max_size}, and no row has "
            f"more columns than that. Give {advice}, or a max_size of {sizes[-1]} or more."
        )


def esapn(
    data: Interactions, config: FitConfig, budgets: Sequence[Fraction], seed: int, journal: Journal | None = None
) -> list[TableSpec]:
    """One table of the sizes where the policies stopped, whatever the budgets: its sparsity is an outcome.

    The mask keeps of every row the first columns up to its size. With output `mask_retrain` it is trained anew from the
    seed as that of every method; with `native` training goes on with the rows, maps and recommender of the search.

    Args:
        data: interactions to train on.
        config: settings of the recommender and of the method.
        budgets: sparsities asked for.
        seed: of the initial weights and of whatever is drawn.
        journal: checkpoint and history; without one nothing is kept.

    Returns:
        the one table.

    Raises:
        InputError: sizes above max_size.
        FitError: a loss is not finite.
        RunDirectoryError: the checkpoint is of other data or settings.
    """
    check_sizes(config)
    journal = Journal() if journal is None else journal
    with cpu_threads(config.threads):
        growth = SizeGrowth(data, config, seed, prepare(data, resolve_device(config.device)))
        epoch, frozen = growth.load(journal)
        while epoch < config.esapn.epochs and not frozen:
            epoch += 1
            growing = growth.epoch(epoch, journal)
            # Hardly any growth means nothing before the policies have made up their minds.
            begun = float((growth.embedding.levels > 0).to(torch.float64).mean())
            frozen = growing < config.esapn.frozen_below <= begun
            growth.save(journal, epoch, frozen)
    mask = PrefixMask(growth.embedding.row_sizes().cpu().numpy().astype(np.int16), config.max_size)
    if config.esapn.output == "mask_retrain":
        return [TableSpec("esapn", mask, seed, search={"passes": epoch})]
    decoder = growth.embedding.decoder_weights()
    about = {"passes": epoch, "map_parameters": sum(value.numel() for value in decoder.values())}
    initial = {"table": growth.embedding.rows(config.max_size)} | dict(growth.backbone.named_parameters())
    start = TableSpec("esapn", mask, seed, initial=_copied(initial), decoder=_copied(decoder))
    return [dataclasses.replace(start, variant="native", search=about)]


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU and without a gradient."""
    return {name: value.detach().cpu().clone() for name, value in tensors.items()}
