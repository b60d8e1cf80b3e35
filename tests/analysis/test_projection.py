"""Projection into one shared space: what is kept, what falls back, what is recorded."""

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from gpt2_interp.analysis.projection import (
    alignment,
    load_projection,
    nearest_neighbours,
    pca,
    project,
    projection_quality,
    quality_neighbours,
    save_projection,
    spread_out,
)
from gpt2_interp.errors import InputError


def moving_clusters(n_step: int = 3, n_example: int = 30, d: int = 8) -> np.ndarray:
    """[step, example, d]: three clusters that move apart."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(3, d)) * 4
    cluster = np.arange(n_example) % 3
    return np.stack([random.normal(size=(n_example, d)) * 0.5 + centres[cluster] * (1 + t) for t in range(n_step)])


def test_pca_is_one_shared_space():
    states = np.zeros((2, 5, 6))
    states[0, :, 2] = np.arange(5)
    states[1, :, 2] = np.arange(5) + 10  # the whole cloud moves along the same direction
    coordinates, share = pca(states)
    np.testing.assert_allclose(coordinates[1, :, 0] - coordinates[0, :, 0], 10)
    np.testing.assert_allclose(share, [1, 0, 0], atol=1e-12)


def test_pca_equals_sklearn_up_to_sign():
    from sklearn.decomposition import PCA

    states = np.random.default_rng(1).normal(size=(2, 20, 7))
    coordinates, share = pca(states)
    model = PCA(3).fit(states.reshape(-1, 7))
    expected = model.transform(states.reshape(-1, 7)).reshape(2, 20, 3)
    np.testing.assert_allclose(np.abs(coordinates), np.abs(expected), atol=1e-9)
    np.testing.assert_allclose(share, model.explained_variance_ratio_)


def test_fewer_than_three_dimensions_are_padded():
    coordinates, share = pca(np.random.default_rng(1).normal(size=(2, 6, 2)))
    assert coordinates.shape == (2, 6, 3) and share[2] == 0 and not coordinates[..., 2].any()


@pytest.mark.parametrize(("n_step", "n_example", "reason"), [(1, 30, "only one snapshot"), (3, 7, "only 7 probes")])
def test_umap_falls_back_to_pca_and_says_so(n_step, n_example, reason):
    projection = project(moving_clusters(n_step, n_example), list(range(n_step)), "aligned_umap")
    assert projection.info["method"] == "pca"
    assert reason in projection.info["notes"][0]


def test_undefined_probes_are_left_out_everywhere():
    states = moving_clusters()
    states[1, 4] = np.nan
    projection = project(states, [0, 1, 2], "pca")
    assert np.isnan(projection.coordinates[:, 4]).all()
    assert np.isfinite(np.delete(projection.coordinates, 4, axis=1)).all()
    assert "1 of 30 probes" in projection.info["notes"][0]


def test_all_undefined_is_one_sentence():
    with pytest.raises(InputError, match="--pooling"):
        project(np.full((2, 20, 4), np.nan), [0, 1], "pca")


def test_quality_of_a_perfect_and_of_a_random_picture():
    states = np.random.default_rng(0).normal(size=(1, 60, 3))
    trust, kept = projection_quality(states, states)
    assert trust[0] == 1 and kept[0] == 1
    trust, kept = projection_quality(states, np.random.default_rng(1).normal(size=states.shape))
    chance = quality_neighbours(60) / 59
    assert trust[0] < 0.65 and abs(kept[0] - chance) < 0.1


def test_nearest_against_the_obvious_way():
    X = np.random.default_rng(0).normal(size=(12, 4))
    indices, distances = nearest_neighbours(X, 5)
    full = np.linalg.norm(X[:, None] - X[None], axis=-1)
    np.testing.assert_array_equal(indices, np.argsort(full, axis=1)[:, :5])
    np.testing.assert_allclose(distances, np.sort(full, axis=1)[:, :5], atol=1e-7)


def test_a_point_is_its_own_first_neighbour_among_duplicates():
    indices, distances = nearest_neighbours(np.zeros((6, 2)), 3)
    np.testing.assert_array_equal(indices[:, 0], np.arange(6))
    assert not distances.any()


def test_alignment_ties_probes_to_themselves_at_existing_steps_only():
    neighbours = np.zeros((2, 3, 3), dtype=bool)
    neighbours[0, 0, 1] = neighbours[1, 0, 1] = neighbours[1, 0, 2] = True
    similarity, relations = alignment(neighbours)
    middle = similarity.shape[1] // 2
    assert similarity[0, middle + 1, 0] == 0.5  # one shared neighbour of two
    np.testing.assert_array_equal(relations[0, middle + 1], [0, 1, 2])
    assert (relations[0, middle - 1] == -1).all() and (relations[1, middle + 1] == -1).all()


def test_the_record_comes_back(tmp_path):
    projection = project(moving_clusters(), [0, 20, 100], "pca")
    projection.info.update(layer="block 2", pooling="target_mean")
    save_projection(tmp_path / "projection.safetensors", projection)
    loaded = load_projection(tmp_path / "projection.safetensors")
    assert loaded.steps == [0, 20, 100] and loaded.info == projection.info
    np.testing.assert_array_equal(loaded.coordinates, projection.coordinates)
    np.testing.assert_array_equal(loaded.trustworthiness, projection.trustworthiness)


def test_the_record_says_what_is_in_it_and_an_earlier_one_is_read(tmp_path):
    projection = project(moving_clusters(), [0, 20, 100], "pca")
    path = tmp_path / "run" / "projection.safetensors"
    save_projection(path, projection)
    with safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        stated = json.loads(file.metadata()["info"])
    assert stated["run"] == "run" and stated["schema_version"] == 2 and set(stated["arrays"]) == set(arrays)
    for name, about in stated["arrays"].items():
        assert len(about["axes"]) == arrays[name].ndim and about["unit"]
    chance = projection.info.pop("neighbours_kept_chance")
    arrays["knn_overlap"] = arrays.pop("neighbours_kept")
    save_file(arrays, path, {"info": json.dumps({**projection.info, "knn_overlap_chance": chance})})
    loaded = load_projection(path)
    np.testing.assert_array_equal(loaded.neighbours_kept, projection.neighbours_kept)
    assert loaded.info["neighbours_kept_chance"] == chance == 10 / 29


def test_missing_and_damaged_records_are_named(tmp_path):
    path = tmp_path / "run" / "projection.safetensors"
    with pytest.raises(InputError, match="analyze_latent_space.py --run_name run"):
        load_projection(path)
    path.parent.mkdir()
    path.write_bytes(b"not a tensor file")
    with pytest.raises(InputError, match="can't be read"):
        load_projection(path)


def test_spread_out_keeps_the_ends():
    assert spread_out([0, 1, 5, 9, 20], 3) == [0, 5, 20]
    assert spread_out([0, 7], 20) == [0, 7]
    assert spread_out(list(range(100)), 20)[-1] == 99 and len(spread_out(list(range(100)), 20)) == 20


def test_more_neighbours_than_probes_are_reduced_and_said(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "gpt2_interp.analysis.projection.aligned_umap", lambda X, n, d, seed: asked.append(n) or X[..., :3]
    )
    projection = project(moving_clusters(), [0, 1, 2], n_neighbors=100)
    assert asked == [29] == [projection.info["n_neighbors"]]
    assert "n_neighbors reduced from 100 to 29" in projection.info["notes"][0]


@pytest.mark.slow
def test_aligned_umap_keeps_clusters_is_repeatable_and_obeys_min_dist():
    states = moving_clusters(n_example=60)
    near, again, far = (project(states, [0, 1, 2], n_neighbors=10, min_dist=d, seed=3) for d in (0.0, 0.0, 0.9))
    np.testing.assert_array_equal(near.coordinates, again.coordinates)
    assert near.info["method"] == "aligned_umap" and near.trustworthiness.min() > 0.85
    for points in near.coordinates:  # a probe lies nearer to its own cluster than to the others
        centres = np.stack([points[c::3].mean(axis=0) for c in range(3)])
        assert (np.linalg.norm(points[:, None] - centres, axis=-1).argmin(axis=1) == np.arange(60) % 3).all()
    spacing = [np.median(nearest_neighbours(p.coordinates[0].astype(float), 2)[1][:, 1]) for p in (near, far)]
    assert spacing[1] > 1.5 * spacing[0]  # umap.AlignedUMAP itself ignores min_dist in the joint layout
