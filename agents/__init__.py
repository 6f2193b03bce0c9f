if __name__ != "rlplatform.agents":
    raise ImportError("import rlplatform.agents, not agents: pyproject.toml mounts the folder there")
