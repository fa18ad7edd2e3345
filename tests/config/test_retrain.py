from ciess.config.retrain import RetrainConfig


def test_retraining_defaults() -> None:
    assert RetrainConfig().model_dump() == {
        "sparsity": None,
        "candidates": None,
        "seeds": (0,),
        "compare": None,
        "halving": True,
        "project": False,
        "refit": True,
    }
