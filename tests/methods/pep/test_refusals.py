import math
from collections.abc import Callable
from fractions import Fraction

import pytest

from ciess.config.fit import FitConfig
from ciess.config.methods import PEPConfig
from ciess.data import Interactions
from ciess.errors import FitError, InputError
from ciess.methods.pep.pep import check_thresholds, pep
from ciess.methods.pep.soft_threshold import ThresholdedEmbedding

HALF, MOST = Fraction(1, 2), Fraction(4, 5)


Config = Callable[..., FitConfig]


class TestRefusals:
    def test_thresholds_that_begin_above_the_table(self, data: Interactions, config: Config) -> None:
        settings = config(initial_threshold=1.0)
        with pytest.raises(InputError) as caught:
            pep(data, settings, [HALF, MOST], 0)
        assert str(caught.value) == (
            f"Before any training the thresholds keep 0 of {data.n * 16:,} entries, which already fits the sparsity "
            "0.8, but thresholds below most of the table were expected, so that training decides. Lower "
            "pep.initial_threshold (1)."
        )
        asked = settings.model_copy(update={"sparsity": (0.5, 0.8), "seeds": (0,)})
        with pytest.raises(InputError) as before:
            check_thresholds(asked, data)
        assert str(before.value) == str(caught.value)
        check_thresholds(asked.model_copy(update={"pep": PEPConfig()}), data)

    def test_thresholds_that_leave_nothing(self, data: Interactions, config: Config) -> None:
        with pytest.raises(FitError) as caught:
            pep(data, config(initial_threshold=-20.0, threshold_scale=1e6, learning_rate=10.0), [HALF], 0)
        assert str(caught.value) == (
            "The thresholds keep 0 entries after step 2, and the table holds 0 that are not finite numbers, but a "
            "mask of some entries of a finite table was expected. Lower the learning_rate or the decay of pep."
        )

    def test_a_table_that_is_no_longer_finite(
        self, data: Interactions, config: Config, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Entries that are not numbers are above no threshold, so they must not pass for pruned."""
        counted = ThresholdedEmbedding.kept
        calls = []

        def kept(embedding: ThresholdedEmbedding) -> int:
            calls.append(None)
            if len(calls) == 2:
                embedding.weight.data[:-1] = math.nan
            return counted(embedding)

        monkeypatch.setattr(ThresholdedEmbedding, "kept", kept)
        with pytest.raises(FitError, match=r"after step 2, and the table holds [\d,]{5} that are not finite numbers"):
            pep(data, config(), [HALF], 0)
