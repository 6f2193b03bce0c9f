"""The stubs, which type checkers read, against the extensions, which run: pybind11 writes each signature into its docstring."""

import ast
import importlib
import importlib.util
import re
from pathlib import Path

import pytest

import rlplatform

STUBS = Path(rlplatform.__file__).parent

# What pybind11 accepts for a parameter, as a stub says it.
SPELLINGS = {
    "typing.SupportsInt | typing.SupportsIndex": "int",
    "typing.SupportsFloat | typing.SupportsIndex": "float",
    "collections.abc.Sequence": "list",
    "numpy.typing.NDArray": "NDArray",
    "numpy.ndarray": "Array",
    "numpy.dtype": "dtype",
}


def spelled(annotation):
    """One spelling for both sides."""
    text = ast.unparse(annotation)
    for runtime, stub in SPELLINGS.items():
        text = text.replace(runtime, stub)
    text = re.sub(r"\b(np|numpy|rlplatform\._core|rlplatform\._cuda)\.", "", text)
    return text.replace("dtype[Any]", "dtype")


def agrees(stub, runtime):
    """`object`, `tuple` and `dict` are all that a binding says of what it checks itself: the stub may say more."""
    stub, runtime = spelled(stub), spelled(runtime)
    if runtime == "object":
        return True
    for vague in ("tuple", "dict"):
        if re.search(rf"\b{vague}\b(?!\[)", runtime):
            stub = re.sub(r"\btuple\[.*\]", "tuple", stub) if vague == "tuple" else "dict"
    return stub == runtime


def of_stub(name):
    """{name or Class.name: ast.FunctionDef} of the functions, methods and properties that a stub declares. A private class is
    none at run time: it holds what the classes built on it share. A TypedDict is none, either. What is imported from another stub
    of ours is declared there."""
    body = ast.parse((STUBS / f"{name}.pyi").read_text()).body
    for node in [node for node in body if isinstance(node, ast.ImportFrom) and node.module.startswith("rlplatform._")]:
        shared = ast.parse((STUBS / f"{node.module.partition('.')[2]}.pyi").read_text()).body
        assert [alias.name for alias in node.names] == ["*"]
        body = [*body, *shared]
    classes = {node.name: node for node in body if isinstance(node, ast.ClassDef)}
    found = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}
    for node in classes.values():
        bases = [ast.unparse(base) for base in node.bases]
        if node.name.startswith("_") or "TypedDict" in bases:
            continue
        for part in (*(classes[base] for base in bases), node):
            found |= {f"{node.name}.{child.name}": child for child in part.body if isinstance(child, ast.FunctionDef)}
    return found


def signature(doc):
    """The function that the first line of a docstring declares."""
    line = doc.splitlines()[0]
    line = f"_{line}" if line.startswith("(") else line  # a property
    return ast.parse(f"def {line}: ...").body[0]


def of_extension(name):
    found = {}
    module = importlib.import_module(f"rlplatform.{name}")
    for key, value in vars(module).items():
        if key.startswith("_"):
            continue
        if not isinstance(value, type):
            found[key] = signature(value.__doc__)
            continue
        for member, method in vars(value).items():
            documented = method.fget if isinstance(method, property) else method
            unbound = member == "__init__" and not documented.__doc__.startswith(
                "__init__("
            )  # functions make this class
            if callable(documented) and documented.__doc__ and not member.startswith("_pybind11") and not unbound:
                found[f"{key}.{member}"] = signature(documented.__doc__)
    return found


@pytest.mark.parametrize("name", ["_core", "_cuda"])
def test_stub_agrees_with_the_extension(name):
    if importlib.util.find_spec(f"rlplatform.{name}") is None:
        pytest.skip(f"rlplatform.{name} was not built")
    stub, extension = of_stub(name), of_extension(name)
    assert stub.keys() == extension.keys()
    assert len(stub) >= 4
    for key, declared in stub.items():
        runtime = extension[key]
        is_property = any(ast.unparse(d) == "property" for d in declared.decorator_list)
        parameters, taken = ([a for a in f.args.args if a.arg not in {"self", "arg0"}] for f in (declared, runtime))
        if not is_property:
            assert [a.arg for a in parameters] == [a.arg for a in taken], key
            assert len(declared.args.defaults) == len(runtime.args.defaults), key
        for ours, theirs in zip(parameters, taken, strict=True):
            assert agrees(ours.annotation, theirs.annotation), f"{key}({ours.arg}: {spelled(theirs.annotation)})"
        assert agrees(declared.returns, runtime.returns), f"{key} -> {spelled(runtime.returns)}"


@pytest.mark.parametrize(
    ("stub", "runtime", "agree"),
    [
        ("int", "typing.SupportsInt | typing.SupportsIndex", True),
        ("float", "typing.SupportsInt | typing.SupportsIndex", False),
        ("NDArray[np.float32]", "numpy.typing.NDArray[numpy.float32]", True),
        ("NDArray[np.float64]", "numpy.typing.NDArray[numpy.float32]", False),
        ("list[int]", "collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]", True),
        ("tuple[int, int]", "tuple", True),
        ("tuple[Array, ...] | None", "tuple | None", True),
        ("list[int]", "tuple", False),
        ("tuple[int, str]", "tuple[int, int]", False),
        ("None", "int", False),
    ],
)
def test_the_comparison_can_fail(stub, runtime, agree):
    parse = lambda text: ast.parse(text, mode="eval").body
    assert agrees(parse(stub), parse(runtime)) is agree
