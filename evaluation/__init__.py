if __name__ != "rlplatform.evaluation":
    raise ImportError("import rlplatform.evaluation, not evaluation: pyproject.toml mounts the folder there")
