"""A State on disk: one JSON file for the structure, one uncompressed .npz for the arrays. Nothing is pickled.

    state.json   {"format", "digest", "arrays", "tree"}: digests of the tree's text and of arrays.npz, then the tree, in
                 which an array stands as {"@array": key}
    arrays.npz   the arrays, by key

`write` is durable when it returns; `read` refuses what is damaged or foreign, by name.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlplatform.segments import sync_folder
from rlplatform.types import Array, State

FORMAT = "rlplatform state 1"


class StateError(ValueError):
    """A state file that is damaged, incomplete or not ours."""


def write(folder: Path, state: State) -> None:
    """Write `state` into the existing folder and force it to the disk. Raises TypeError for what a State may not hold."""
    arrays: dict[str, Array] = {}
    tree = _encode(state, "", arrays)
    with (folder / "arrays.npz").open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes **kwds for allow_pickle
        file.flush()
        os.fsync(file.fileno())
    text = json.dumps(tree)
    digests = {"digest": _digest(text), "arrays": _file_digest(folder / "arrays.npz")}
    with (folder / "state.json").open("w") as text_file:
        json.dump({"format": FORMAT, **digests, "tree": text}, text_file)
        text_file.flush()
        os.fsync(text_file.fileno())
    sync_folder(folder)


def read(folder: Path) -> State:
    """What `write` put there, tensors as tensors. Raises StateError that names the file and what is wrong with it."""
    structure, archive = folder / "state.json", folder / "arrays.npz"
    try:
        outer = json.loads(structure.read_text())
        sums = _file_digest(archive)
    except (OSError, ValueError) as error:
        raise StateError(f"{folder} is damaged or incomplete: {error}") from error
    if not isinstance(outer, dict) or outer.get("format") != FORMAT:
        raise StateError(f"{structure} is not an {FORMAT!r} file")
    if outer.keys() != {"format", "digest", "arrays", "tree"} or _digest(str(outer["tree"])) != outer["digest"]:
        raise StateError(f"{structure} is damaged: its digest does not match")
    if sums != outer["arrays"]:
        raise StateError(f"{archive} is damaged: its digest does not match")
    with archive.open("rb") as file, np.load(file, allow_pickle=False) as members:
        arrays = {key: members[key] for key in members.files}
    decoded: State = _decode(json.loads(outer["tree"]), arrays)
    return decoded


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode()).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _encode(value: Any, where: str, arrays: dict[str, Array]) -> Any:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case np.generic():
            return _encode(value.item(), where, arrays)
        case torch.Tensor():
            tensor = value.detach().cpu().contiguous()
            if tensor.dtype == torch.bfloat16:  # numpy has no bfloat16: keep its bits
                return {"@bfloat16": _keep(tensor.view(torch.int16).numpy(), where, arrays)}
            return {"@tensor": _keep(tensor.numpy(), where, arrays)}
        case np.ndarray():
            if value.dtype.hasobject:
                raise TypeError(f"{where}: an array of objects cannot be saved")
            return {"@array": _keep(value, where, arrays)}
        case bytes():
            return {"@bytes": _keep(np.frombuffer(value, np.uint8), where, arrays)}
        case list() | tuple():
            return {"@list": [_encode(item, f"{where}/{i}", arrays) for i, item in enumerate(value)]}
        case Mapping():
            for key in value:
                if not isinstance(key, str) or key.startswith("@"):
                    raise TypeError(f"{where}: keys must be strings that do not begin with @, got {key!r}")
            return {key: _encode(item, f"{where}/{key}", arrays) for key, item in value.items()}
    raise TypeError(f"{where}: a {type(value).__name__} cannot be saved")


def _keep(array: Array, where: str, arrays: dict[str, Array]) -> str:
    key = f"{len(arrays)}{where.replace('/', '.')}"
    arrays[key] = array
    return key


def _decode(tree: Any, arrays: dict[str, Array]) -> Any:
    if not isinstance(tree, dict):
        return tree
    if len(tree) == 1:
        (tag, content), *_ = tree.items()
        if tag == "@array":
            return arrays[content]
        if tag == "@tensor":
            return torch.from_numpy(arrays[content])
        if tag == "@bfloat16":
            return torch.from_numpy(arrays[content]).view(torch.bfloat16)
        if tag == "@bytes":
            return arrays[content].tobytes()
        if tag == "@list":
            return [_decode(item, arrays) for item in content]
    return {key: _decode(item, arrays) for key, item in tree.items()}
