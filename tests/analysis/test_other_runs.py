from gpt2_interp.analysis.other_runs import undeciding


def test_what_decides_nothing_learned_is_read_from_either_run():
    new, old = {"decides": {"record": ["num_beams"], "nothing": ["report_to"]}}, {"arguments": {}}
    for pair in ((new, old), (old, new)):
        assert {"num_beams", "report_to", "run_name"} <= undeciding(*pair)
        assert "report_to" in undeciding(*pair, kinds=["nothing"])
        assert "num_beams" not in undeciding(*pair, kinds=["nothing"])
    assert "run_name" in undeciding(old, old) and "learning_rate" not in undeciding(new, old)
