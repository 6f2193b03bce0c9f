import pytest


@pytest.fixture(autouse=True)
def no_references_of_ones_own(tmp_path_factory, monkeypatch):
    """Tests see what is shipped, not what the developer has imported."""
    monkeypatch.setenv("RLPLATFORM_REFERENCES", str(tmp_path_factory.getbasetemp() / "no_references"))
