from itertools import permutations

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes
from scipy.stats import spearmanr

from gpt2_interp.measures.hidden_states import displacement_per_example, hidden_measures
from gpt2_interp.measures.similarities import cka_of_grams
from gpt2_interp.snapshots.table import HIDDEN, POOLINGS

RNG = np.random.default_rng(0)


def measured(name, X_t, X_0=None):
    """One of `hidden_measures` of states [example, hidden_layer, d_model], which stand at all poolings."""
    states = [np.repeat(X[:, None], len(POOLINGS), axis=1) for X in (X_t, X_t if X_0 is None else X_0)]
    values = hidden_measures(*states)[name]
    values = values if name.endswith("half_samples") else values[0]
    return values[..., 0] if name.startswith("cka") and not name.endswith("half_samples") else values


def test_displacement_as_loops():
    X_0, X_t = RNG.normal(size=(6, 2, 5)) + 3, RNG.normal(size=(6, 2, 5))
    for layer in range(2):
        mean = sum(X_0[:, layer]) / 6
        moved = sum(((X_t[k, layer] - X_0[k, layer]) ** 2).sum() for k in range(6))
        spread = [((X_0[k, layer] - mean) ** 2).sum() for k in range(6)]
        assert measured("displacement", X_t, X_0)[layer] == pytest.approx(np.sqrt(moved / sum(spread)))
        one = np.linalg.norm(X_t[2, layer] - X_0[2, layer]) / np.mean(np.sqrt(spread))
        assert displacement_per_example(X_t, X_0)[2, layer] == pytest.approx(one)


def test_a_base_compared_with_itself():
    X = RNG.normal(size=(40, 3, 16)).astype(np.float32)
    assert (measured("displacement", X, X) == 0).all()
    np.testing.assert_allclose(measured("cka_debiased", X, X), 1)


def test_cka_ignores_rotation_scale_and_shift_but_not_noise():
    X = RNG.normal(size=(60, 1, 8))
    rotation = np.linalg.qr(RNG.normal(size=(8, 8)))[0]
    np.testing.assert_allclose(measured("cka_debiased", X, 5 * X @ rotation + 100), 1, atol=1e-9)
    grams = [(x - x.mean(0)) @ (x - x.mean(0)).T for x in (X[:, 0], *RNG.normal(size=(30, 60, 500)))]
    unrelated = [cka_of_grams(grams[0], gram) for gram in grams[1:]]
    assert abs(np.mean(unrelated)) < 0.05  # the plain CKA would say about .9 with 500 dimensions on 60 examples
    assert min(unrelated) < 0


def slow_hsic1(K, L):
    """The mean over all tuples of four different examples of K_ij (L_ij + L_kl - 2 L_ik), the U-statistic itself."""
    values = [K[i, j] * (L[i, j] + L[k, m] - 2 * L[i, k]) for i, j, k, m in permutations(range(len(K)), 4)]
    return np.mean(values)


def within_clusters(X_t, X_0, clusters):
    """[hidden_layer] at the first pooling"""
    states = [np.repeat(X[:, None], len(POOLINGS), axis=1) for X in (X_t, X_0)]
    return hidden_measures(*states, clusters=clusters)["cka_within_clusters"][0]


def test_cka_within_clusters_as_loops_over_tuples():
    """Sums over clusters first, then the ratio; the cluster of three examples is left out."""
    X_t, X_0 = related(n=14, d=6)
    clusters = [*"aaaaa", *"bbbbbb", *"ccc"]
    for layer in range(2):
        sums = np.zeros(3)
        for rows in (slice(0, 5), slice(5, 11)):
            K, L = (X[rows, layer] @ X[rows, layer].T for X in (X_t, X_0))
            sums += [slow_hsic1(K, L), slow_hsic1(K, K), slow_hsic1(L, L)]
        expected = sums[0] / np.sqrt(sums[1] * sums[2])
        assert within_clusters(X_t, X_0, clusters)[layer] == pytest.approx(expected, abs=1e-5)


def test_centres_of_clusters_that_stay_do_not_hide_that_all_else_changed():
    centres = np.repeat(RNG.normal(size=(6, 1, 20)) * 20, 20, axis=0)
    X_t, X_0 = (centres + RNG.normal(size=(120, 1, 20)) for _ in range(2))
    assert measured("cka_debiased", X_t, X_0)[0] > 0.95
    assert abs(within_clusters(X_t, X_0, np.repeat(list("abcdef"), 20))[0]) < 0.15
    assert within_clusters(X_0, X_0, np.repeat(list("abcdef"), 20))[0] == pytest.approx(1)


def test_without_a_cluster_of_four_nothing_is_compared_within_clusters():
    X_t, X_0 = related(n=12)
    assert np.isnan(within_clusters(X_t, X_0, [str(i // 3) for i in range(12)])).all()
    assert np.isnan(within_clusters(X_t, X_0, None)).all()


def test_examples_without_this_pooling_are_left_out():
    X_0, X_t = RNG.normal(size=(12, 2, 5)), RNG.normal(size=(12, 2, 5))
    with_gaps = [X.copy() for X in (X_0, X_t)]
    with_gaps[0][3], with_gaps[1][7] = np.nan, np.nan
    kept = [k for k in range(12) if k not in (3, 7)]
    np.testing.assert_allclose(
        measured("displacement", with_gaps[1], with_gaps[0]), measured("displacement", X_t[kept], X_0[kept])
    )
    np.testing.assert_allclose(
        measured("cka_debiased", with_gaps[1], with_gaps[0]), measured("cka_debiased", X_t[kept], X_0[kept])
    )
    per_example = displacement_per_example(with_gaps[1], with_gaps[0])
    assert np.isnan(per_example[[3, 7]]).all()
    np.testing.assert_allclose(per_example[kept], displacement_per_example(X_t[kept], X_0[kept]))


@pytest.mark.parametrize("X", [np.ones((3, 2, 4)), np.full((6, 2, 4), np.nan), np.ones((6, 2, 4))])
def test_undefined_is_nan(X):
    """Three examples, none with this pooling, and no spread at all."""
    assert np.isnan(measured("displacement", X, X)).all() and np.isnan(measured("cka_debiased", X, X)).all()
    assert np.isnan(displacement_per_example(X, X)).all()


def related(n=40, n_layer=2, d=20):
    """A base [n, n_layer, d] with directions of very different width, and what it could look like later."""
    X_0 = RNG.normal(size=(n, n_layer, d)) * np.exp(RNG.normal(size=d)) + 2
    return X_0 + RNG.normal(size=X_0.shape), X_0


def slow_cosines(x):
    x = x - x.mean(axis=0)
    return np.array([[a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for b in x] for a in x])


def test_rsa_is_the_rank_correlation_of_distances():
    X_t, X_0 = related()
    pairs = [(i, j) for i in range(40) for j in range(i)]
    for layer in range(2):
        c_t, c_0 = slow_cosines(X_t[:, layer]), slow_cosines(X_0[:, layer])
        distances = [[1 - c[pair] for pair in pairs] for c in (c_t, c_0)]
        assert measured("rsa", X_t, X_0)[layer] == pytest.approx(spearmanr(*distances).statistic, abs=1e-6)


def test_knn_overlap_as_loops():
    X_t, X_0 = related()
    for layer in range(2):
        c_t, c_0 = slow_cosines(X_t[:, layer]), slow_cosines(X_0[:, layer])
        shares = []
        for i in range(40):
            others = [j for j in range(40) if j != i]
            near_t = sorted(others, key=lambda j, c=c_t[i]: -c[j])[:10]
            near_0 = sorted(others, key=lambda j, c=c_0[i]: -c[j])[:10]
            shares.append(len(set(near_t) & set(near_0)) / 10)
        assert 0.3 < np.mean(shares) < 1
        assert measured("knn_overlap", X_t, X_0)[layer] == pytest.approx(np.mean(shares))


def test_knn_overlap_of_unrelated_states_is_chance():
    values = [measured("knn_overlap", *RNG.normal(size=(2, 60, 1, 30)))[0] for _ in range(30)]
    assert np.mean(values) == pytest.approx(10 / 59, abs=0.01)


@pytest.mark.parametrize("n", [40, 9])
def test_procrustes_is_what_is_left_after_the_best_rotation(n):
    """||A - B R||_F^2 / 2 with the best rotation R, A and B / ||.||_F, equals 1 - ||A'B||_*."""
    X_t, X_0 = related(n)
    for layer in range(2):
        x_t, x_0 = (X[:, layer] - X[:, layer].mean(axis=0) for X in (X_t, X_0))
        components = np.linalg.svd(x_0)[2][: min(16, n - 1)].T  # [d, component]
        A, B = x_0 @ components, x_t @ components
        A, B = A / np.linalg.norm(A), B / np.linalg.norm(B)
        left = np.linalg.norm(A - B @ orthogonal_procrustes(B, A)[0]) ** 2 / 2
        assert measured("procrustes", X_t, X_0)[layer] == pytest.approx(left)


def test_procrustes_sees_no_rotation_within_the_base_directions_and_no_scale():
    X = RNG.normal(size=(50, 1, 12))
    rotation = np.linalg.qr(RNG.normal(size=(12, 12)))[0]
    assert measured("procrustes", 3 * X @ rotation + 1, X)[0] == pytest.approx(0, abs=1e-12)


def test_unrelated_states_are_as_far_as_chance():
    X_t, X_0 = RNG.normal(size=(2, 60, 1, 100))
    assert 0 < measured("procrustes_chance", X_t, X_0)[0] < 0.9  # not 1: the reason why it stands beside procrustes
    assert measured("procrustes", X_t, X_0)[0] == pytest.approx(measured("procrustes_chance", X_t, X_0)[0], abs=0.05)
    near, base = related()
    assert (measured("procrustes", near, base) < measured("procrustes_chance", near, base) - 0.2).all()


def test_a_large_dimension_decides_cka_but_not_cka_scaled():
    X_0 = RNG.normal(size=(80, 1, 10))
    X_0[:, :, 0] *= 1000
    X_0[:, :, 1] = 5  # no spread: divided by its SD it would be infinite
    X_t = RNG.normal(size=(80, 1, 10))
    X_t[:, :, 0] = X_0[:, :, 0]
    assert measured("cka_debiased", X_t, X_0)[0] > 0.999
    assert measured("cka_scaled", X_t, X_0)[0] < 0.4
    kept = [0, *range(2, 10)]
    sd = X_0[:, :, kept].std(axis=0)
    expected = measured("cka_debiased", X_t[:, :, kept] / sd, X_0[:, :, kept] / sd)
    np.testing.assert_allclose(measured("cka_scaled", X_t, X_0), expected)


def test_anisotropy_as_loops():
    X = RNG.normal(size=(9, 2, 6)) + [3, -2, 0, 0, 1, 0]
    for layer in range(2):
        unit = [x / np.linalg.norm(x) for x in X[:, layer]]
        parts = np.mean([a * b for i, a in enumerate(unit) for j, b in enumerate(unit) if i != j], axis=0)  # [d]
        assert measured("anisotropy", X)[layer] == pytest.approx(parts.sum())
        assert measured("anisotropy_top3", X)[layer] == pytest.approx(sum(sorted(parts)[-3:]) / parts.sum())
    opposed = np.stack([np.ones((2, 4)), -np.ones((2, 4))] * 2)
    assert (measured("anisotropy", opposed) < 0).all() and np.isnan(measured("anisotropy_top3", opposed)).all()


def test_half_samples_as_loops():
    X_t, X_0 = related(30)
    halves = np.random.default_rng(0).permuted(np.tile(np.arange(30), (200, 1)), axis=1)[:, :15]
    assert len({tuple(sorted(half)) for half in halves}) > 190
    for name, measure in (("cka", "cka_debiased"), ("rsa", "rsa"), ("knn", "knn_overlap")):
        values = np.array([measured(measure, X_t[half], X_0[half]) for half in halves])  # [half_sample, hidden_layer]
        expected = np.stack([values.mean(axis=0), *np.percentile(values, [2.5, 97.5], axis=0)], axis=-1)
        np.testing.assert_allclose(measured(f"{name}_half_samples", X_t, X_0), expected, atol=1e-6)


# --- all of them -------------------------------------------------------------------------------------------------


def snapshots(n=30, d=12):
    """Three states [example, pooling, hidden_layer, d_model]; probes 4 and 9 have no source."""
    X = RNG.normal(size=(3, n, 3, 2, d)).cumsum(axis=0) + 1
    X[:, [4, 9], 0] = np.nan
    return X.astype(np.float32)


def test_every_pooling_and_the_snapshot_before():
    X_0, X_prev, X_t = snapshots()
    result = hidden_measures(X_t, X_0, X_prev)
    names = ("displacement", "procrustes", "procrustes_chance", "rsa", "knn_overlap", "anisotropy", "anisotropy_top3")
    for pooling in range(3):
        t, zero, previous = X_t[:, pooling], X_0[:, pooling], X_prev[:, pooling]
        for name in names:
            np.testing.assert_allclose(result[name][pooling], measured(name, t, zero), atol=1e-5, err_msg=name)
        sd = np.nanstd(zero[~np.isnan(zero).any((1, 2))].astype(float), axis=0)
        for name, scale in (("cka_debiased", 1), ("cka_scaled", sd)):
            for k, reference in enumerate((zero, previous)):
                expected = measured("cka_debiased", t / scale, reference / scale)
                np.testing.assert_allclose(result[name][pooling, :, k], expected, atol=1e-5, err_msg=name)
    for name in ("cka_half_samples", "rsa_half_samples", "knn_half_samples"):
        at_target = POOLINGS.index("target_mean")
        np.testing.assert_allclose(result[name], measured(name, X_t[:, at_target], X_0[:, at_target]), atol=1e-5)
    np.testing.assert_allclose(result["hidden_displacement"], displacement_per_example(X_t, X_0), rtol=1e-6)
    assert result["hidden_norm"][7, 1, 0] == pytest.approx(np.linalg.norm(X_t[7, 1, 0]))
    assert np.isnan(result["hidden_norm"][4, 0]).all()


def test_every_row_of_the_table_with_its_axes():
    X_0, X_prev, X_t = snapshots()
    sizes = {"example": 30, "pooling": 3, "hidden_layer": 2, "reference": 2, "spread": 3}
    result = hidden_measures(X_t, X_0, X_prev)
    rows = [row for row in HIDDEN if row.name != "hidden_pooled"]
    assert {row.name for row in rows} == set(result)
    for row in rows:
        assert result[row.name].shape == tuple(sizes[axis] for axis in row.axes), row.name
        assert result[row.name].dtype == np.float32


def test_step_zero():
    X_0 = snapshots()[0]
    result = hidden_measures(X_0, X_0)
    assert (result["displacement"] == 0).all() and np.nanmax(result["hidden_displacement"]) == 0
    np.testing.assert_allclose(result["procrustes"], 0, atol=1e-6)
    for name in ("cka_debiased", "cka_scaled"):
        np.testing.assert_allclose(result[name][..., 0], 1, atol=1e-6)
        assert np.isnan(result[name][..., 1]).all()  # no previous snapshot
    for name in ("rsa", "knn_overlap", "cka_half_samples", "rsa_half_samples", "knn_half_samples"):
        np.testing.assert_allclose(result[name], 1, atol=1e-6, err_msg=name)


def test_equal_probes_stay_equally_near():
    """Prompts of one length end alike, so that their embeddings are equal: rounding must not rank them."""
    X_0 = np.repeat(RNG.normal(size=(4, 1, 30)), 12, axis=0).astype(np.float32)
    X_t = (X_0 * np.float32(1.7)).astype(np.float32)
    np.testing.assert_allclose(measured("rsa", X_t, X_0), 1, atol=1e-6)
    np.testing.assert_allclose(measured("knn_overlap", X_t, X_0), 1)


@pytest.mark.parametrize(
    ("n", "defined"), [(3, ()), (11, ("rsa", "procrustes")), (12, ("rsa", "procrustes", "knn_overlap"))]
)
def test_too_few_probes_are_nan(n, defined):
    X_0, X_t = RNG.normal(size=(2, 12, 3, 2, 8))
    X_0[n:] = np.nan
    result = hidden_measures(X_t, X_0)
    for name in ("rsa", "procrustes", "knn_overlap"):
        assert np.isfinite(result[name]).all() if name in defined else np.isnan(result[name]).all(), name
    assert np.isnan(result["rsa_half_samples"]).all() == (n < 8)
    assert np.isnan(result["knn_half_samples"]).all()


@pytest.mark.parametrize("X", [np.ones((20, 3, 2, 4)), np.full((20, 3, 2, 4), np.nan), np.full((20, 3, 2, 4), np.inf)])
def test_states_without_spread_or_not_finite_are_nan(X):
    result = hidden_measures(X, X, X)
    for name in set(result) - {"hidden_norm", "anisotropy", "anisotropy_top3"}:
        assert np.isnan(result[name]).all(), name
