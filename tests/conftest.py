import os

import pytest

# Before torch is imported, and for processes of tests: their networks are tiny, so that a second thread of matrix products would wait for
# the first, and on a busy machine both for whoever else is there.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def no_references_of_ones_own(tmp_path_factory, monkeypatch):
    """Tests see what is shipped, not what the developer has imported."""
    monkeypatch.setenv("RLPLATFORM_REFERENCES", str(tmp_path_factory.getbasetemp() / "no_references"))
