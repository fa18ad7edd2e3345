import numpy as np
import pytest

from ciess.data import planted
from ciess.errors import InputError


def degrees(data):
    splits = (data.train, data.valid, data.test)
    return (
        sum(np.bincount(pairs.users, minlength=data.n_users) for pairs in splits),
        sum(np.bincount(pairs.items, minlength=data.n_items) for pairs in splits),
    )


def test_equal_arguments_make_equal_data_and_seeds_differ():
    one, again, other = planted(seed=3), planted(seed=3), planted(seed=4)
    assert one.data.sha256 == again.data.sha256 != other.data.sha256
    assert np.array_equal(one.data.train.items, again.data.train.items)
    assert np.array_equal(one.needy, again.needy)


def test_split_seed_changes_the_split_alone():
    one, other = planted(split_seed=0), planted(split_seed=1)
    assert one.data.sha256 == other.data.sha256
    assert not np.array_equal(one.data.train.items, other.data.train.items)


def test_shapes_and_shares():
    made = planted(n_users=300, n_items=200, needy_share=0.3)
    assert made.needy.dtype == np.bool_
    assert len(made.needy) == made.data.n
    assert made.needy[: made.data.n_users].sum() == 90
    assert made.data.counts()["user_degree"]["mean"] == pytest.approx(60, rel=0.1)
    assert made.data.name == made.data.source == "planted"


@pytest.mark.parametrize("seed", range(3))
def test_degrees_are_skewed_and_do_not_tell_the_needy(seed):
    made = planted(seed=seed)
    needy_users, needy_items = np.split(made.needy, [made.data.n_users])
    for degree, needy in zip(degrees(made.data), (needy_users, needy_items), strict=True):
        assert degree.max() > 2.5 * degree.mean()
        # A quarter of 400 draws from a law with a log deviation of 0.6 has a mean within about 7 %.
        assert degree[needy].mean() == pytest.approx(degree[~needy].mean(), rel=0.2)
        assert abs(np.corrcoef(np.log(degree), needy)[0, 1]) < 0.12


def test_needy_users_have_tastes_of_more_dimensions():
    made = planted(n_users=600, n_items=400)
    data = made.data
    needy_users, needy_items = np.split(made.needy, [data.n_users])
    table = np.zeros((data.n_users, data.n_items))
    for pairs in (data.train, data.valid, data.test):
        table[pairs.users, pairs.items] = 1.0

    def singular_values(block):
        residual = block - np.outer(block.sum(1), block.sum(0)) / block.sum()
        values = np.linalg.svd(residual, compute_uv=False) ** 2
        return np.cumsum(values) / values.sum()

    rng = np.random.default_rng(0)
    some_users = rng.choice(np.flatnonzero(~needy_users), needy_users.sum(), replace=False)
    some_items = rng.choice(np.flatnonzero(~needy_items), needy_items.sum(), replace=False)
    needy = singular_values(table[np.ix_(needy_users, needy_items)])
    plain = singular_values(table[np.ix_(some_users, some_items)])
    # Among the needy eight components stand out of the noise, elsewhere one does.
    assert needy[7] - needy[0] > 2 * (plain[7] - plain[0])


def test_larger_sets_are_made_in_blocks():
    made = planted(n_users=1500, n_items=300, interactions_per_user=20)
    assert made.data.n_users == 1500
    assert (np.bincount(made.data.train.users, minlength=1500) > 0).all()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"seed": -1}, "planted: seed is -1. Expected a whole number from 0."),
        ({"needy_share": 1.0}, "planted: needy_share is 1.0. Expected between 0 and 1."),
        ({"needy_dimensions": 1}, "planted: needy_dimensions is 1. Expected more than plain_dimensions=1."),
        ({"interactions_per_user": 300}, "interactions_per_user is 300. Expected from 8 to n_items / 2 = 200."),
    ],
)
def test_arguments_out_of_range(options, text):
    with pytest.raises(InputError) as error:
        planted(**options)
    assert text in str(error.value)
