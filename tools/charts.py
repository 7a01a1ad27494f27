"""The page of ``dvc plots show`` with Vega inside it: DVC's own loads Vega from the network."""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import vl_convert
from dvc_render import VegaRenderer

from stages.common.errors import UserError, run
from stages.common.files import write_bytes

TEMPLATES = Path(".dvc/plots")
TEMPLATE = Path("runs/offline.html")
PAGE = Path("runs/charts/index.html")
DVC = (sys.executable, "-m", "dvc")
VEGA_LITE = "5.21"  # the templates in .dvc/plots are of Vega-Lite 5

# DVC's charts are 300 pixels wide: here is more room where a chart is a single view
EMBED = "window.vegaEmbed = (id, chart) => vegaEmbed(id, chart.width ? {...chart, width: 640, height: 420} : chart);"
HEAD = '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>Charts</title>\n<script>'
TAIL = "</script>\n</head>\n<body>\n{plot_divs}\n</body>\n</html>\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("revisions", nargs="*", help="compare these: none shows the workspace")
    print(f"charts: {draw(Path(), parser.parse_args().revisions)}")


def draw(root: Path, revisions: list[str]) -> Path:
    """Write the charts' page of the pipeline in ``root`` and return its path.

    Without ``revisions`` it shows the workspace, else it compares them.

    Raises:
        UserError: DVC could not make the page.
    """
    vega = vl_convert.javascript_bundle(EMBED, vl_version=VEGA_LITE)
    write_bytes(root / TEMPLATE, (HEAD + vega + TAIL).encode())
    command = ["plots", "diff", *revisions] if revisions else ["plots", "show"]
    # DVC also prints the page's address
    status = dvc(root, *command, "--html-template", str(TEMPLATE), "-o", str(PAGE.parent), quiet=True)
    if status:
        raise UserError(f"dvc {' '.join(command)} ended with status {status}: see its messages above")
    return root / PAGE


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
