if __name__ != "rlplatform.envs":
    raise ImportError("import rlplatform.envs, not envs: pyproject.toml mounts the folder there")
