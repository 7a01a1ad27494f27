"""The page of ``dvc plots show``, or of ``dvc plots diff`` with revisions, that needs no network.

DVC's own page loads Vega from the network; this one, runs/charts/index.html, carries it.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import vl_convert
from dvc_render import VegaRenderer

from stages.common.errors import UserError, run

TEMPLATES = Path(".dvc/plots")
PAGE = Path("runs/charts/index.html")
DVC = (sys.executable, "-m", "dvc")
VEGA_LITE = "5.21"  # the templates are of Vega-Lite 5

# DVC makes every chart 300 pixels wide; one that does not stand beside others gets more room here
WIDER = "chart.width > 0 ? {...chart, width: 640, height: 420} : chart"
EMBED = f"window.vegaEmbed = (id, chart) => vegaEmbed(id, {WIDER});"
HEAD = '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>Charts</title>\n<script>'
TAIL = "</script>\n</head>\n<body>\n{plot_divs}\n</body>\n</html>\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("revisions", nargs="*", help="commits, tags, experiments; none: the workspace alone")
    print(f"charts: {draw(Path(), parser.parse_args().revisions)}")


def draw(root: Path, revisions: list[str]) -> Path:
    """Write the charts' page of the pipeline in ``root`` and return its path.

    Without ``revisions`` it shows the workspace; a single one is compared with the workspace.

    Raises:
        UserError: DVC could not make the page, or had nothing to draw.
    """
    command = ["plots", "diff", *revisions] if revisions else ["plots", "show"]
    page = root / PAGE
    shutil.rmtree(page.parent, ignore_errors=True)  # pictures of other revisions would stay
    page.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        template = Path(folder, "page.html")
        vega = vl_convert.javascript_bundle(EMBED, vl_version=VEGA_LITE)
        template.write_text(HEAD + vega + TAIL, encoding="utf-8")
        # quiet: DVC prints the page's address too
        status = dvc(root, *command, "--html-template", str(template), "-o", str(PAGE.parent), quiet=True)
    if status:
        raise UserError(f"dvc {' '.join(command)} ended with status {status}: see its messages above")
    if not page.exists():
        raise UserError(f"dvc {' '.join(command)} found no results to draw: run 'dvc repro' first")
    return page


def specification(
    template: str, rows: list[dict[str, Any]], x: str, y: str, title: str, size: tuple[int, int] = (560, 360)
) -> dict[str, Any]:
    """The chart of ``template`` in Vega-Lite, filled as DVC fills it, for a picture that nobody can click on.

    ``rows`` have ``rev``, ``filename`` (``metrics/<model>.json``), ``x``, ``y`` and, where it is not ``y``,
    ``field``; ``size`` is the width and height of each view in pixels. Where there is one revision only, no
    legend names it.
    """
    names = dict.fromkeys((row["filename"], row.get("field", y)) for row in rows)
    sources = [{"filename": name, "field": field} for name, field in names]
    chart: dict[str, Any] = VegaRenderer(
        rows,
        title,
        template=template,
        template_dir=str(TEMPLATES),
        x=x,
        y=y,
        y_label=y.replace("_", " "),
        anchors_y_definitions=sources,  # without them, DVC drops the names of the files
    ).get_filled_template()
    view = chart.get("spec", chart)  # of a chart with several views
    chart["title"] = title
    view |= {"width": size[0], "height": size[1]}
    if len({row["rev"] for row in rows}) == 1:
        del view["layer"][0]["encoding"]["strokeDash"]
    return chart


def dvc(root: Path, *arguments: str, quiet: bool = False) -> int:
    """Run DVC in ``root`` and return its status."""
    output = subprocess.DEVNULL if quiet else None
    return subprocess.run(
        [*DVC, *arguments], cwd=root, env=environment(), stdout=output, check=False
    ).returncode


def environment() -> dict[str, str]:
    """The environment for DVC in which its stages find this very Python."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return os.environ | {"PATH": path}


if __name__ == "__main__":
    run(main)
