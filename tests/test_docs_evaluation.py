import re
from pathlib import Path

import numpy as np

PAGE = Path(__file__).parents[1] / "docs" / "evaluation.md"


def test_the_page_s_statistics_work() -> None:
    block = re.search(
        r"<!-- tested by tests/test_docs_evaluation.py -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL
    )
    said = {}
    exec(block[1], said)  # noqa: S102  # it is what the page tells a reader to run
    assert said["iqm"].low < said["iqm"].point < said["iqm"].high < said["four"]["IQM"].low  # BBF is far above SPR
    assert said["iqm"].runs == (100, 100, 100)
    assert list(said["four"]) == ["IQM", "median", "mean", "optimality gap to 1"]
    assert list(said["per_game"]) == ["Pong", "Boxing", "Seaquest"]
    assert said["better"].low > 0.5
    assert said["gain"].low > 0.0
    assert said["gain"].point == said["four"]["IQM"].point - said["iqm"].point
    assert said["ranks"].shape == (3, 3)
    assert np.argmax(said["ranks"][2]) == 0
    assert (np.diff(said["profile"].point) < 0).all()
    assert 25 < said["needed"].more < 80  # 14 runs of each: three times as many, or thereabouts
