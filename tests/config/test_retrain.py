from ciess.config.retrain import RetrainConfig


def test_retraining_defaults() -> None:
    assert RetrainConfig().model_dump() == {
        "sparsity": (0.8, 0.9, 0.95),
        "candidates": None,
        "seeds": (0,),
        "compare": None,
        "halving": True,
        "project": False,
        "refit": True,
    }
