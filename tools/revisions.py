"""What differs between two revisions, in Markdown as GitHub shows it: metrics and accuracy curves.

The workflow in .github/ writes it into the summary of a pull request. GitHub shows no picture that is not
on a server there, but it draws Mermaid's charts.
"""

import argparse
import json
import subprocess

from stages.common.errors import UserError, run
from tools.charts import DVC
from tools.git import commit_of, show
from tools.models import MODELS

COLOURS = {"grey": "#8c959f", "blue": "#0969da"}  # visible on white and on black
METRIC = "test_accuracy"


def main() -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", help="the revision to compare with, such as origin/main")
    parser.add_argument("head", nargs="?", default="HEAD", help="the revision to look at (default: HEAD)")
    parser.add_argument("--ref", help="where a reviewer fetches head, such as refs/pull/7/merge")
    arguments = parser.parse_args()
    print(comparison(arguments.base, arguments.head))
    if arguments.ref:
        print(f"\n{repeating(arguments.ref)}")


def comparison(base: str, head: str) -> str:
    """The metrics that differ between two revisions, and the curves of the models whose curve does.

    Raises:
        UserError: there is no Git here, or it does not know one of them.
    """
    before, after = histories(base), histories(head)
    parts = [f"### {head} compared with {base}", metrics_table(base, head)]
    changed = [model for model in MODELS if before[model] != after[model]]
    if changed:
        parts.append(f"Test accuracy after each epoch, grey: {base}, blue: {head}.")
    for model in changed:
        curves = {"grey": before[model], "blue": after[model]}
        if len({len(curve) for curve in curves.values() if curve}) == 1:
            parts.append(chart(model, curves))
        else:  # Mermaid would stretch the shorter one
            parts += [chart(model, {colour: curve}) for colour, curve in curves.items()]
    return "\n\n".join(part for part in parts if part)


def metrics_table(base: str, head: str) -> str:
    """What ``dvc metrics diff --md`` says of two revisions.

    Raises:
        UserError: DVC could not compare them.
    """
    command = [*DVC, "metrics", "diff", "--md", base, head]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        raise UserError(f"dvc metrics diff ended with status {result.returncode}: see its messages above")
    table = result.stdout.strip()
    return table if table.count("\n") > 1 else "No metric differs."  # DVC prints the head alone


def histories(revision: str) -> dict[str, list[float]]:
    """The test accuracy of each model after each epoch, at ``revision``; empty where it has none.

    Raises:
        UserError: there is no Git here, or it does not know ``revision``.
    """
    commit = commit_of(revision)
    results = {model: show(commit, f"metrics/{model}.json") for model in MODELS}
    return {
        model: [epoch[METRIC] for epoch in json.loads(result or "{}").get("history", [])]
        for model, result in results.items()
    }


def chart(model: str, curves: dict[str, list[float]]) -> str:
    """A Mermaid chart of ``curves``, by colour and all of one length; nothing where all are empty."""
    drawn = {colour: curve for colour, curve in curves.items() if curve}
    if not drawn:
        return ""
    palette = ", ".join(COLOURS[colour] for colour in drawn)
    settings = {
        "xyChart": {"width": 640, "height": 320},
        "themeVariables": {"xyChart": {"plotColorPalette": palette}},
    }
    epochs = max(map(len, drawn.values()))
    return "\n".join(
        [
            "```mermaid",
            f"%%{{init: {json.dumps(settings)}}}%%",
            "xychart-beta",
            f'  title "{model}"',
            f"  x-axis epoch 1 --> {epochs}",
            '  y-axis "test accuracy"',
            *(f"  line {json.dumps(curve)}" for curve in drawn.values()),
            "```",
        ]
    )


def repeating(ref: str) -> str:
    """How a reviewer repeats the reduced run of ``ref``, a name that the remote repository has."""
    return f"""The reduced run on synthetic images, repeated in a clone: two minutes on two cores.

```sh
git fetch origin {ref} && git switch --detach FETCH_HEAD && make quickstart TORCH=cpu
```"""


if __name__ == "__main__":
    run(main)
