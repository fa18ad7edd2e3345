"""The search stage of ESAPN (Liu et al., SIGIR 2020): a recommender learns from a stream while its embeddings grow."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional

from ciess.config.fit import FitConfig
from ciess.data import Interactions
from ciess.errors import FitError
from ciess.methods.esapn.entity_losses import EntityLosses, entity_means
from ciess.methods.esapn.leveled_embedding import LeveledEmbedding
from ciess.methods.esapn.pair_stream import Batch, PairStream
from ciess.methods.esapn.size_policy import POPULARITIES, SizePolicy, greedy, reinforce, sample
from ciess.methods.journal import Journal
from ciess.seeds import derive_seed
from ciess.training.checkpoint import set_slots, set_weights, slots_of, weights_of
from ciess.training.loop import build
from ciess.training.prepared import Prepared

NOTE_EVERY = 10
"""Steps between two lines of the history."""


class SizeGrowth:
    """Recommender, policies and what is remembered of every entity.

    A step takes one batch of the stream: entities of the batch grow where growing is the likelier action, and the
    recommender trains on it; an entity that is not in the batch keeps its size. Before every share `lookahead` of a
    pass the policies learn, from a held-out batch (before the first one nothing: no loss was seen yet); in between an
    entity grows by one size at most, as in the published code.
    """

    def __init__(self, data: Interactions, config: FitConfig, seed: int, prepared: Prepared) -> None:
        self.data, self.config, self.seed, self.device = data, config, seed, prepared.device
        batch_size = config.esapn.batch_size or config.training.batch_size
        settings = self.settings = config.esapn.model_copy(update={"batch_size": batch_size})
        self.stream = PairStream(data, prepared, settings, seed)
        self.backbone, table = build(data, config.recommender(), seed)
        self.backbone.to(self.device)
        self.backbone.noise = torch.Generator(self.device)
        self.sides = (slice(0, data.n_users), slice(data.n_users, data.n))
        self.embedding = LeveledEmbedding(
            table, settings.sizes, self.sides, settings.bn_tanh, self._generator("chains")
        ).to(self.device)
        self.graph = self.stream.graph(self.backbone.normalisation)
        self.policies = [
            SizePolicy(len(settings.sizes), settings.initial_stay, self._generator("policy", side)).to(self.device)
            for side in ("users", "items")
        ]
        self.losses = EntityLosses(data.n, settings.memory).to(self.device)
        self.optimizer = torch.optim.Adam(
            [*self.embedding.parameters(), *self.backbone.parameters()], lr=settings.learning_rate, fused=True
        )
        self.policy_optimizers = [
            torch.optim.Adam(policy.parameters(), lr=settings.policy_learning_rate, fused=True)
            for policy in self.policies
        ]
        self.draws = torch.Generator(self.device)
        self.grew = torch.zeros(data.n, dtype=torch.bool, device=self.device)

    def _generator(self, *what: str) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(self.seed, "esapn", *what))

    def margins(self, batch: Batch) -> Tensor:
        """y_uv - y_uv' of Eq. 4 of a batch: float32[k]."""
        users, positives, negatives = batch
        return self.backbone.margin(self.backbone.encode(self.embedding(), self.graph), users, positives, negatives)

    def train(self, batch: Batch) -> Tensor:
        """One step of the recommender on Eq. 4 without its penalty (published code); returns the loss before it."""
        self.backbone.train()
        self.optimizer.zero_grad(set_to_none=True)
        loss = functional.softplus(-self.margins(batch)).mean()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def held_out_losses(self, batch: Batch) -> Tensor:
        """1 - sigmoid(margin) of every pair of a batch, in [0, 1] (published code: squared error of sigmoid)."""
        self.backbone.eval()
        return torch.sigmoid(-self.margins(batch))

    def per_entity(self, batch: Batch, losses: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss float32[n] and pairs int64[n] of each entity; a pair belongs to its user and its positive item."""
        users, positives, _ = batch
        return entity_means(torch.cat([users, positives + self.data.n_users]), losses.repeat(2), self.data.n)

    @torch.no_grad()
    def enlarge(self, chosen: Tensor) -> None:
        """Give the rows bool[n] the next size, with the output as it is and steps of Adam as long as before.

        Without a second moment the first step of a grown row would be three times as long as any other, and its harm
        would hide what the size is worth (published code: none). A map of variance 1 / inputs lets squared gradients
        fall by the ratio of the sizes.
        """
        weights, levels = self.embedding.weights, self.embedding.levels.clone()
        self.embedding.enlarge(chosen)
        for level in range(len(self.settings.sizes) - 1):
            old, new = (self.optimizer.state.get(weights[position]) for position in (level, level + 1))
            if old and new:
                ratio = self.settings.sizes[level] / self.settings.sizes[level + 1]
                moment = old["exp_avg_sq"].mean(1, keepdim=True) * ratio
                growing = (chosen & (levels == level))[:, None]
                new["exp_avg_sq"].copy_(torch.where(growing, moment, new["exp_avg_sq"]))

    @contextmanager
    def tentatively(self) -> Iterator[None]:
        """Whatever happens to embedding, recommender and optimiser inside has not happened after it."""
        modules = {"embedding": self.embedding, "backbone": self.backbone}
        weights = {name: value.detach().clone() for name, value in weights_of(**modules).items()}
        slots = slots_of("optimizer", self.optimizer)
        before = {name: value.clone() for name, value in slots.items()}
        try:
            yield
        finally:
            set_weights(weights, **modules)
            if before:
                for name, value in slots.items():
                    value.copy_(before[name])
            else:
                self.optimizer.state.clear()

    def states(self) -> list[Tensor]:
        """State of every entity in its side's policy."""
        popularity = self.losses.popularity(POPULARITIES - 1)
        return [
            policy.states(popularity[rows], self.embedding.levels[rows])
            for policy, rows in zip(self.policies, self.sides, strict=True)
        ]

    def policy_step(self, upcoming: list[Batch], held_out: Batch, number: int) -> dict[str, Tensor]:
        """Enlarge entities of a held-out batch as the policies draw, see what their losses become, undo it, and learn.

        Entities whose losses were not seen before, and those of the largest size, teach nothing.

        Args:
            upcoming: batches that the enlarged recommender trains on before it is judged (`lookahead`).
            held_out: batch that only the policies see.
            number: of the step, for its draws.

        Returns:
            sums for the history, by name.
        """
        self.draws.manual_seed(derive_seed(self.seed, "esapn", "draws", number))
        users, positives, _ = held_out
        present = torch.zeros(self.data.n, dtype=torch.bool, device=self.device)
        present[users] = True
        present[positives + self.data.n_users] = True
        present &= self.losses.seen > 0
        chosen = present & self.embedding.growable
        states = self.states()
        log_probabilities = [
            policy(own, present[rows]) for policy, own, rows in zip(self.policies, states, self.sides, strict=True)
        ]
        drawn = torch.cat([sample(log, own, self.draws) for log, own in zip(log_probabilities, states, strict=True)])
        actions = drawn & chosen
        with self.tentatively():
            self.enlarge(actions)
            for batch in upcoming:
                self.train(batch)
            losses = self.held_out_losses(held_out)
        means, _ = self.per_entity(held_out, losses)
        rewards = self.losses.rewards(means)
        for side, rows in enumerate(self.sides):
            loss = reinforce(log_probabilities[side], states[side], actions[rows], rewards[rows], chosen[rows])
            self.policy_optimizers[side].zero_grad(set_to_none=True)
            loss.backward()
            self.policy_optimizers[side].step()
        self.grew.zero_()
        stayed = chosen & ~actions
        return {
            "reward_enlarge": (rewards * actions).sum() / actions.sum().clamp(min=1),
            "reward_stay": (rewards * stayed).sum() / stayed.sum().clamp(min=1),
        }

    def recommender_step(self, batch: Batch) -> dict[str, Tensor]:
        """Let entities of the batch grow where the policies would rather, train on it, and count its pairs."""
        users, positives, _ = batch
        present = torch.zeros(self.data.n, dtype=torch.bool, device=self.device)
        present[users] = True
        present[positives + self.data.n_users] = True
        with torch.no_grad():
            grown = torch.cat(
                [
                    greedy(policy(own, present[rows]), own)
                    for policy, own, rows in zip(self.policies, self.states(), self.sides, strict=True)
                ]
            )
        grown &= present & self.embedding.growable & ~self.grew
        self.grew |= grown
        self.enlarge(grown)
        loss = self.train(batch)
        self.losses.count(torch.bincount(torch.cat([users, positives + self.data.n_users]), minlength=self.data.n))
        return {"loss": loss, "grown": grown.sum()}

    def remember(self, held_out: Batch) -> dict[str, Tensor]:
        """Add the losses of a held-out batch under the sizes as they are to what later rewards start from."""
        losses = self.held_out_losses(held_out)
        self.losses.record(*self.per_entity(held_out, losses))
        return {"held_out_loss": losses.mean()}

    def epoch(self, number: int, journal: Journal) -> float:
        """One pass over the stream, counted from 1; returns the share of rows that grew in it."""
        assert self.backbone.noise is not None
        self.backbone.noise.manual_seed(derive_seed(self.seed, "esapn", "dropout", number))
        batches = self.stream.epoch(number)
        before = self.embedding.levels.clone()
        totals: dict[str, list[Tensor]] = {}
        lookahead = math.ceil(self.settings.lookahead * len(batches))
        for position, batch in enumerate(batches):
            step = (number - 1) * len(batches) + position + 1
            held_out = self.stream.judging(step)
            found = {}
            if position % max(1, lookahead) == 0:
                upcoming = [batches[(position + ahead) % len(batches)] for ahead in range(lookahead)]
                found = self.policy_step(upcoming, held_out, step)
            found |= self.recommender_step(batch) | self.remember(held_out)
            for name, value in found.items():
                totals.setdefault(name, []).append(value)
            if (position + 1) % NOTE_EVERY == 0 or position + 1 == len(batches):
                self._note(journal, number, step, totals)
                totals = {}
        return float((self.embedding.levels != before).to(torch.float64).mean())

    def _note(self, journal: Journal, number: int, step: int, totals: dict[str, list[Tensor]]) -> None:
        sizes = self.embedding.row_sizes().to(torch.float64)
        grown = int(torch.stack(totals.pop("grown")).sum())
        means = {name: float(torch.stack(values).mean()) for name, values in totals.items()}
        journal.note(
            stage="search",
            step=step,
            epoch=number,
            sparsity=1 - float(sizes.mean()) / self.config.max_size,
            mean_user_size=float(sizes[self.sides[0]].mean()),
            mean_item_size=float(sizes[self.sides[1]].mean()),
            grown=grown,
            **{name: means.get(name) for name in ("loss", "held_out_loss", "reward_enlarge", "reward_stay")},
        )
        if not math.isfinite(means["loss"]):
            raise FitError(
                f"The loss of the ESAPN search is {means['loss']} in step {step} with seed {self.seed}; a finite "
                "number was expected. Lower esapn.learning_rate."
            )

    def save(self, journal: Journal, epoch: int, frozen: bool) -> None:
        """Write the state after a pass."""
        tensors = weights_of(**self._modules())
        for name, optimizer in self._optimizers().items():
            tensors |= slots_of(name, optimizer)
        journal.save(epoch, tensors, {"epoch": epoch, "frozen": frozen})

    def load(self, journal: Journal) -> tuple[int, bool]:
        """Put the last written state in place; returns the passes done, and whether the sizes are final."""
        found = journal.load()
        if found is None:
            return 0, False
        tensors, state = found
        set_weights(tensors, **self._modules())
        for name, optimizer in self._optimizers().items():
            set_slots(tensors, name, optimizer)
        return state["epoch"], state["frozen"]

    def _modules(self) -> dict[str, torch.nn.Module]:
        users, items = self.policies
        return {
            "embedding": self.embedding,
            "backbone": self.backbone,
            "losses": self.losses,
            "user_policy": users,
            "item_policy": items,
        }

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        users, items = self.policy_optimizers
        return {"optimizer": self.optimizer, "user_optimizer": users, "item_optimizer": items}
