import re
from pathlib import Path

import numpy as np

from rlplatform import envs

PAGE = Path(__file__).parents[1] / "docs" / "envs.md"


def test_the_page_s_environment_works():
    block = re.search(r"<!-- tested by tests/test_docs_envs.py -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    before = dict(envs._ENTRIES)
    try:
        exec(block[1], {})  # noqa: S102  # it is what the page tells a reader to run
        batch, other = envs.make("corridor", 3, 0), envs.make("corridor", 3, 9)
        assert envs.suite_of("corridor").steps == 5_000
        batch.reset(), other.reset()
        rng, ends = np.random.default_rng(0), set()
        for t in range(200):
            if t == 50:
                other.load_state_dict(batch.state_dict())
            action = (rng.random(3) < [0.9, 0.5, 0.1]).astype(np.int64)
            step, twin = batch.step(action), other.step(action)
            for i, frame in zip(step.final_env, step.final_frame, strict=True):
                ends.add(bool(step.terminated[i]))
                assert frame[7] == step.terminated[i] == step.reward[i]
            if t >= 50:
                for x, y in zip(step, twin, strict=True):
                    np.testing.assert_array_equal(x, y)
        assert ends == {True, False}
    finally:
        envs._ENTRIES.clear()
        envs._ENTRIES.update(before)
