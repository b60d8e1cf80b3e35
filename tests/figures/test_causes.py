"""Grafts: the planted block carries what was learned."""

import numpy as np
import pytest

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.errors import InputError
from gpt2_interp.figures.causes import graft, graft_panels
from gpt2_interp.figures.draw_html import draw_html
from tests.fake_store import CARRYING_BLOCK, write_fake_run


def test_the_planted_block_stands_out_with_a_narrow_band(measurements):
    necessity, sufficiency = graft_panels(measurements)
    for panel in (necessity, sufficiency):
        assert panel.rows[0] == "embeddings" and panel.rows[-1] == "ln_f" and len(panel.rows) == 8
        assert panel.rows[int(np.argmax(panel.values))] == CARRYING_BLOCK
        assert panel.values.max() == pytest.approx(0.72, abs=0.02) and np.sort(panel.values)[-2] < 0.05
        assert (panel.low <= panel.values).all() and (panel.values <= panel.high).all()
        assert "95% bootstrap over 12" in panel.x_label
    bars = draw_html(graft(measurements), measurements).data
    np.testing.assert_allclose(bars[0].x, necessity.values)
    np.testing.assert_allclose(bars[0].x + bars[0].error_x.array, necessity.high)


def test_without_grafts_it_is_said(tmp_path):
    m = Measurements(write_fake_run(tmp_path, steps=(0, 10), tiers=("light", "heavy")).paths)
    with pytest.raises(InputError, match="graft_necessity"):
        graft_panels(m)
