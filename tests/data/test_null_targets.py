import datasets
import pytest

from gpt2_interp.data.corpora import load_corpus
from gpt2_interp.data.hub_rows import MappedRows
from gpt2_interp.data.null_targets import permute_targets
from gpt2_interp.data.rows import fingerprint
from gpt2_interp.data.settings import DataArguments
from gpt2_interp.errors import InputError


def row(i, source=True):
    return {"id": str(i), "cluster": f"c{i}", "source": f"S{i}" * source, "target": f"T{i}", "facts": [i]}


@pytest.mark.parametrize("n", [2, 3, 50])
def test_no_row_keeps_its_target_and_none_is_lost(n):
    rows = [row(i) for i in range(n)]
    permuted, count = permute_targets(rows, seed=1)
    assert count == len(permuted) == n
    for one, was in zip(permuted, rows, strict=True):
        assert "facts" not in one and one["target"] != was["target"]
        assert {**was, "target": one["target"]} == {**one, "facts": was["facts"]}
    assert sorted(one["target"] for one in permuted) == sorted(one["target"] for one in rows)
    assert rows == [row(i) for i in range(n)]
    assert list(permuted) == [permuted[i] for i in range(n)] == permuted[:] and permuted[-1] == permuted[n - 1]


def test_the_seed_decides():
    rows = [row(i) for i in range(50)]
    assert list(permute_targets(rows, 1)[0]) == list(permute_targets(rows, 1)[0]) != list(permute_targets(rows, 2)[0])
    taken_from = [permute_targets(rows, seed)[0].taken_from for seed in (1, 2)]
    assert sum(one == other for one, other in zip(*taken_from, strict=True)) < 10


def test_plain_texts_stay_and_alone_are_refused():
    rows = [row(i, source=i % 2) for i in range(9)]
    permuted, count = permute_targets(rows, seed=0)
    assert count == 4 and [one["target"] for one in permuted][::2] == ["T0", "T2", "T4", "T6", "T8"]
    assert all(permuted[i]["target"] != rows[i]["target"] for i in (1, 3, 5, 7))
    for alone in (rows[::2], rows[:2], []):
        with pytest.raises(InputError, match="--null_targets.*plain text"):
            permute_targets(alone, seed=0)


def test_a_table_stays_on_disk_and_gives_the_same_rows():
    records = [{"id": f"i{i}", "article": f"A{i}", "highlights": f"H{i}"} for i in range(2500)]
    table = MappedRows(datasets.Dataset.from_list(records), DataArguments(), "a/b", "train")[100:2300]
    permuted, count = permute_targets(table, seed=3)
    assert count == 2200 and isinstance(permuted.donors, MappedRows)
    expected = permute_targets(list(table), seed=3)[0]
    assert list(permuted) == list(expected) and permuted[7:9] == expected[7:9]
    assert fingerprint(permuted) == fingerprint(expected) != fingerprint(table)
    assert {one["target"][1:] for one in permuted} == {one["source"][1:] for one in permuted}


def test_only_the_training_rows_of_a_corpus_are_permuted():
    data = DataArguments(dataset_name="synthetic_news", max_train_samples=40, max_eval_samples=5, max_predict_samples=5)
    whole = load_corpus(data, 8, seed=0)
    data.null_targets = True
    null = load_corpus(data, 8, seed=0)
    assert [one["source"] for one in null.train] == [one["source"] for one in whole.train]
    assert not any(a["target"] == b["target"] for a, b in zip(null.train, whole.train, strict=True))
    for use in ("validation", "test", "probes", "control"):
        assert getattr(null, use) == getattr(whole, use)
    assert null.provenance["train"]["sha256"] != whole.provenance["train"]["sha256"]
    assert null.provenance["train"]["source"].endswith("targets permuted")
    assert any("40 training rows are permuted" in note for note in null.notes)


def test_plain_text_has_no_targets_to_permute():
    data = DataArguments(task="creative_writing", dataset_name="synthetic_text", max_train_samples=5, null_targets=True)
    with pytest.raises(InputError, match="--null_targets"):
        load_corpus(data, 8, seed=0)
