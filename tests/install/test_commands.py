"""What the Makefile and the workflow name is there."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.project import ROOT

WORKFLOWS = sorted((ROOT / ".github").rglob("*.yml"))
FILES = [ROOT / "Makefile", ROOT / ".ci/run", *WORKFLOWS]


def mappings(node: Any) -> list[dict[str, Any]]:
    """``node`` and everything below it that has keys."""
    children = list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []
    below = [mapping for child in children for mapping in mappings(child)]
    return [node, *below] if isinstance(node, dict) else below


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_modules_that_are_run_are_there(file: Path) -> None:
    for name in re.findall(r"python -m ([\w.]+)", file.read_text(encoding="utf-8")):
        spec = find_spec(name)
        assert spec, name
        if spec.submodule_search_locations is not None:
            assert find_spec(f"{name}.__main__"), name


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_actions_are_of_a_major_version_or_here(file: Path) -> None:
    content = mappings(yaml.safe_load(file.read_text(encoding="utf-8")))
    used = [mapping["uses"] for mapping in content if "uses" in mapping]
    assert used
    for action in used:
        here = action.startswith("./") and (ROOT / action / "action.yml").is_file()
        assert here or re.fullmatch(r"actions/[\w-]+@v\d+", action), action


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_files_that_decide_about_the_cache_are_there(file: Path) -> None:
    for names in re.findall(r"hashFiles\((.*?)\)", file.read_text(encoding="utf-8")):
        for name in re.findall(r"'(.*?)'", names):
            assert (ROOT / name).is_file(), name
