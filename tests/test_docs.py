"""The documents: every question has its place, every link and every pointer leads somewhere."""

import re
from pathlib import Path

import pytest

from tests.project import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
THEORY = ("a.1", "a.2", "a.3", "b.1", "b.2", "b.3")
PROGRAMMING = ("a.1", "a.2", "a.3", "b.1", "b.2", "b.3", "b.4", "b.5", "c.1", "c.2", "c.3")
FINDINGS = (ROOT / "docs/findings.md").read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """What a link to a heading of ``page`` ends with, as GitHub makes it of the heading."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", text)):
        if "://" not in link:
            name, _, anchor = link.partition("#")
            target = (page.parent / name).resolve() if name else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize(("task", "parts"), [("theory", THEORY), ("programming", PROGRAMMING)])
def test_every_question_is_stated_answered_and_in_the_table(task: str, parts: tuple[str, ...]) -> None:
    page = (ROOT / f"docs/{'theory' if task == 'theory' else 'findings'}.md").read_text(encoding="utf-8")
    headings = re.findall(rf"^##+ {task.title()} (\w\.\d): .+\n\n> ", page, re.M)
    assert tuple(headings) == parts
    assert re.findall(rf"^\| {task} (\w\.\d) \|", FINDINGS, re.M) == list(parts)


def test_the_table_points_to_functions_and_tests() -> None:
    table = FINDINGS.split("## Every question at a glance")[1].split("\n## ")[0]
    for row in re.findall(r"^\| (?:theory|programming) .*$", table, re.M):
        pointers = re.findall(r"`([\w/]+\.py)`: ((?:`\w+`(?:, )?)+)", row)
        assert re.search(r"`tests/[\w/]+\.py`: `test_\w+` \|$", row)
        assert len(pointers) == (1 if "`dvc.yaml`" in row else 2), row
        for path, names in pointers:
            code = (ROOT / path).read_text(encoding="utf-8")
            for name in re.findall(r"\w+", names):
                assert re.search(rf"^(def|class) {name}\b", code, re.M), f"{path} has no {name}"
