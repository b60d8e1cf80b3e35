import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from gpt2_interp.measures.projections import entropy, with_entropy, with_mean, with_share

N_KEY = 7
WITHIN = {"all keys": torch.ones(N_KEY, dtype=torch.bool), "not the first": torch.arange(N_KEY) > 0}
MEMBERS = torch.tensor([0, 1, 0, 1, 1, 0, 0], dtype=torch.bool)
VALUES = torch.tensor([9.0, 1.0, 4.0, -2.0, 0.5, 7.0, 3.0])


def rows(count: int = 6, seed: int = 0) -> torch.Tensor:
    return (2 * torch.randn(count, N_KEY, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).softmax(
        -1
    )


def conditional(a, within):
    return a * within / (a * within).sum(-1, keepdim=True)


NUMBERS = {
    "share": (
        lambda a, within: (conditional(a, within) * MEMBERS).sum(-1),
        lambda a, t, w: with_share(a, MEMBERS, t, w),
    ),
    "mean": (lambda a, within: (conditional(a, within) * VALUES).sum(-1), lambda a, t, w: with_mean(a, VALUES, t, w)),
    "entropy": (lambda a, within: entropy(a, within), lambda a, t, w: with_entropy(a, t, w)),
}


def divergence(new, old):
    return (torch.xlogy(new, new) - torch.xlogy(new, old)).sum(-1)


@pytest.mark.parametrize("within", WITHIN)
@pytest.mark.parametrize("name", NUMBERS)
def test_the_number_is_restored_and_rows_sum_to_1(name, within):
    number, restored = NUMBERS[name]
    keys = WITHIN[within]
    a, target = rows(40), number(rows(40, seed=1), keys)
    for precision in (torch.float64, torch.float32):
        new = restored(a.to(precision), target.to(precision), keys)
        torch.testing.assert_close(number(new, keys), target, rtol=0, atol=1e-6)
        torch.testing.assert_close(new.sum(-1), torch.ones(40, dtype=torch.float64))
        assert (new >= 0).all()
    torch.testing.assert_close(restored(a, number(a, keys), keys), a, rtol=0, atol=1e-6)  # nothing to change


@pytest.mark.parametrize("within", WITHIN)
@pytest.mark.parametrize("name", NUMBERS)
def test_no_row_with_the_number_is_nearer(name, within):
    """A numerical optimiser, from several starts, finds none; one of them ends where the projection is."""
    number, restored = NUMBERS[name]
    keys = WITHIN[within]
    for old, other in zip(rows(3), rows(3, seed=1), strict=True):
        target = number(other[None], keys)
        new = restored(old[None], target, keys)[0]
        least = np.inf
        for start in (old, other, new, torch.full_like(old, 1 / N_KEY)):
            found = minimize(
                lambda logits, old=old: divergence(torch.tensor(logits).softmax(-1), old).item(),
                start.log().numpy(),
                constraints={
                    "type": "eq",
                    "fun": lambda logits, target=target: (
                        number(torch.tensor(logits).softmax(-1)[None], keys) - target
                    ).numpy(),
                },
                method="SLSQP",
                options={"ftol": 1e-12, "maxiter": 500},
            )
            if np.abs(number(torch.tensor(found.x).softmax(-1)[None], keys) - target).max() < 1e-7:
                least = min(least, found.fun)
        assert divergence(new, old).item() == pytest.approx(least, abs=1e-5)


def test_a_share_in_closed_form():
    a = rows()
    new = with_share(a, MEMBERS, torch.full((6,), 0.25))
    share = (a * MEMBERS).sum(-1, keepdim=True)
    torch.testing.assert_close(new, torch.where(MEMBERS, a * 0.25 / share, a * 0.75 / (1 - share)))


def test_only_part_of_a_row_is_changed_in_proportion():
    a = rows()
    new = with_entropy(a, torch.full((6,), 0.5), WITHIN["not the first"])
    odds = new[:, 1:].sum(-1) / new[:, 0] / (a[:, 1:].sum(-1) / a[:, 0])
    cost = divergence(conditional(new, WITHIN["not the first"])[:, 1:], conditional(a, WITHIN["not the first"])[:, 1:])
    torch.testing.assert_close(odds, (-cost).exp())


@pytest.mark.parametrize("name", NUMBERS)
def test_what_no_row_has_is_nan(name):
    _, restored = NUMBERS[name]
    a = rows(1)
    for impossible in (-30.0, 30.0, torch.nan):
        assert restored(a, torch.tensor([impossible]), None).isnan().all()
    nothing = torch.zeros(N_KEY, dtype=torch.bool)
    assert restored(a, torch.tensor([0.5]), nothing).isnan().all()  # no key that the number is of
    assert with_share(a, nothing, torch.tensor([0.5])).isnan().all()


def test_one_key():
    one = torch.tensor([[1.0, 0.0, 0.0]])
    values = torch.tensor([2.0, 3.0, 4.0])
    is_first = torch.tensor([True, False, False])
    for new in (
        with_mean(one, values, torch.tensor([2.0])),
        with_entropy(one, torch.tensor([0.0])),
        with_share(one, is_first, torch.tensor([1.0])),
    ):
        torch.testing.assert_close(new, one.double())
    assert with_mean(one, values, torch.tensor([2.5])).isnan().all()
    assert with_entropy(one, torch.tensor([0.5])).isnan().all()
    assert with_share(one, is_first, torch.tensor([0.5])).isnan().all()


def test_limits_put_all_attention_on_the_keys_of_that_end():
    a = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    half = torch.tensor([True, True, False, False])
    expected = torch.tensor([[1 / 3, 2 / 3, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(with_share(a, half, torch.tensor([1.0])), expected, rtol=0, atol=1e-6)
    top = with_mean(a, half.float(), torch.tensor([1.0]))
    torch.testing.assert_close(top, expected, rtol=0, atol=1e-6)
    uniform = torch.full((1, 4), 0.25, dtype=torch.float64)
    torch.testing.assert_close(with_entropy(a, torch.tensor([4.0]).log()), uniform)
    peak = torch.tensor([[0.0, 0, 0, 1]], dtype=torch.float64)
    torch.testing.assert_close(with_entropy(a, torch.tensor([0.0])), peak)
    # A key without any attention stays without: no factor gives it some.
    hidden = torch.tensor([[0.7, 0.3, 0.0, 0.0]])
    assert with_share(hidden, ~half, torch.tensor([0.1])).isnan().all()
    assert (with_entropy(hidden, torch.tensor([0.5]))[0, 2:] == 0).all()


def test_extreme_rows():
    """Attention that all but rests on one key, and numbers far from what it is."""
    a = torch.tensor([[60.0, 0, -20, 5], [0, 0, 0, 0]]).softmax(-1)
    target = torch.tensor([2.9, 0.01])
    values = torch.arange(4.0)
    new = with_mean(a, values, target)
    torch.testing.assert_close((new * values).sum(-1), target.double(), rtol=0, atol=1e-5)
    a[1] = torch.tensor([0, 0, 0, 1e-3]).softmax(-1)  # of keys all alike no power has another entropy
    target = torch.tensor([1.0, 1.386])
    torch.testing.assert_close(entropy(with_entropy(a, target)), target.double(), rtol=0, atol=1e-5)
