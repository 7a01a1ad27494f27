"""Nothing that is read can run code."""

import ast
from pathlib import Path

import pytest

from tests.project import ROOT

SOURCES = sorted(
    file for room in ("stages", "tools", "sweeps", "theory") for file in (ROOT / room).rglob("*.py")
)


# functions that unpickle, of whatever library; yaml.load makes any object too
UNPICKLE = {"read_pickle", "unsafe_load", "unsafe_load_all", "full_load", "full_load_all"}


def calls(file: Path) -> dict[str, list[dict[str, str]]]:
    """Keyword arguments of every call in ``file``, by the name that is called."""
    called: dict[str, list[dict[str, str]]] = {}
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call):
            keywords = {word.arg or "**": ast.unparse(word.value) for word in node.keywords}
            called.setdefault(ast.unparse(node.func), []).append(keywords)
    return called


def imports(file: Path) -> set[str]:
    """Libraries that ``file`` imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(f"{node.module}".split(".")[0])
    return names


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_is_unpickled(file: Path) -> None:
    assert not imports(file) & {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"}
    called = calls(file)
    assert all(keywords.get("weights_only") == "True" for keywords in called.get("torch.load", []))
    assert not UNPICKLE & {name.rpartition(".")[2] for name in called}
    assert not {"eval", "exec", "np.load", "numpy.load", "yaml.load", "yaml.load_all"} & called.keys()
    # ruamel's safe loader, written in Python, makes plain values; its round trip plain containers
    for keywords in called.get("YAML", []):
        assert keywords in ({"typ": "'safe'", "pure": "True"}, {})


def test_the_search_finds_what_it_looks_for() -> None:
    loads = [call for file in SOURCES for call in calls(file).get("torch.load", [])]
    assert loads == [{"weights_only": "True"}]
