"""NCF in its NeuMF form (He et al., WWW 2017): generalised matrix factorisation beside a tower, trained with BPR."""

import torch
from torch import Tensor, nn

from ciess.config.models import NCFConfig
from ciess.models.backbone import Backbone
from ciess.models.embedding import normal_table


class NCF(Backbone):
    """y = h' [p^G o q^G ; tower([p^M ; q^M])] + b, with one size an entity for both of its tables.

    The first layer of the tower is linear in the user half and in the item half of its input, so `encode` applies
    each half once an entity; a pair then costs a sum. Vectors = [GMF columns, first layer's half].
    """

    tables = 2

    def __init__(self, config: NCFConfig, n_users: int, n_items: int, max_size: int) -> None:
        super().__init__(n_users, n_items, max_size)
        self.config = config
        self.user_half = nn.Parameter(torch.empty(max_size, config.hidden[0]))
        self.item_half = nn.Parameter(torch.empty(max_size, config.hidden[0]))
        self.first_bias = nn.Parameter(torch.empty(config.hidden[0]))
        # skip_init: reset_parameters draws the weights, and the global generator is left alone.
        self.tower = nn.ModuleList(
            nn.utils.skip_init(nn.Linear, a, b) for a, b in zip(config.hidden, config.hidden[1:], strict=False)
        )
        self.gmf_output = nn.Parameter(torch.empty(max_size))
        self.tower_output = nn.Parameter(torch.empty(config.hidden[-1]))
        self.floats_per_score = config.hidden[0]

    def initial_table(self, generator: torch.Generator) -> Tensor:
        return normal_table(self.n_users + self.n_items, 2, self.max_size, self.config.initial_scale, generator)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Tower: Xavier-uniform of the whole layer, biases 0; output: uniform +- sqrt(3 / inputs) (original code)."""
        inputs, outputs = 2 * self.max_size, self.config.hidden[0]
        bound = (6 / (inputs + outputs)) ** 0.5
        for half in (self.user_half, self.item_half):
            nn.init.uniform_(half, -bound, bound, generator=generator)
        nn.init.zeros_(self.first_bias)
        for layer in self.tower:
            assert isinstance(layer, nn.Linear)
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)
        bound = (3 / (self.max_size + self.config.hidden[-1])) ** 0.5
        for output in (self.gmf_output, self.tower_output):
            nn.init.uniform_(output, -bound, bound, generator=generator)

    def encode(self, table: Tensor, graph: object = None) -> Tensor:
        width = table.shape[1] // 2
        gmf, tower = table[:, :width], table[:, width:]
        users = torch.addmm(self.first_bias, tower[: self.n_users], self.user_half[:width])
        items = tower[self.n_users :] @ self.item_half[:width]
        return torch.cat([gmf, torch.cat([users, items])], dim=1)

    def _climb(self, first: Tensor) -> Tensor:
        """Scores [...] from the first layer's sums [..., hidden[0]], which are overwritten."""
        values = torch.relu_(first)
        for layer in self.tower:
            values = torch.relu_(layer(values))
        return values @ self.tower_output

    def margin(self, encoded: Tensor, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        rows = torch.cat([users, positives + self.n_users, negatives + self.n_users])
        user, positive, negative = encoded.index_select(0, rows).chunk(3)
        width = encoded.shape[1] - self.config.hidden[0]
        gmf = (user[:, :width] * (positive[:, :width] - negative[:, :width])) @ self.gmf_output[:width]
        first = torch.cat([user[:, width:] + positive[:, width:], user[:, width:] + negative[:, width:]])
        towards, against = self._climb(first).chunk(2)
        return gmf + towards - against

    def pair_scores(self, encoded: Tensor, users: Tensor, items: Tensor) -> Tensor:
        user, item = encoded.index_select(0, torch.cat([users, items + self.n_users])).chunk(2)
        width = encoded.shape[1] - self.config.hidden[0]
        gmf = (user[:, :width] * item[:, :width]) @ self.gmf_output[:width]
        return gmf + self._climb(user[:, width:] + item[:, width:])

    def cross_scores(self, encoded: Tensor, users: Tensor, items: Tensor) -> Tensor:
        return self._crossed(encoded.index_select(0, users), encoded.index_select(0, items + self.n_users))

    def score_all(self, encoded: Tensor, users: Tensor) -> Tensor:
        """Without b, which no ranking sees."""
        return self._crossed(encoded.index_select(0, users), encoded[self.n_users :])

    def _crossed(self, user: Tensor, items: Tensor) -> Tensor:
        """Scores [b, k] of users' vectors [b, w] and items' [k, w]."""
        width = user.shape[1] - self.config.hidden[0]
        gmf = (user[:, :width] * self.gmf_output[:width]) @ items[:, :width].T
        first = user[:, None, width:] + items[None, :, width:]
        return gmf + self._climb(first)
