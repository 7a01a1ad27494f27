"""How a stage runs, from its arguments to its end."""

import argparse
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from stages.common import errors, parent, record
from stages.common.errors import UserError


def run(main: Callable[[], None]) -> None:
    """Run ``main`` of a stage's script; it ends as `errors.run` has it.

    With status 0 only where the parameters, the code and the files that it worked with are still there,
    since DVC records what is there; and only as long as the DVC that started it lives.
    """
    script = Path(inspect.getfile(main))

    def stage() -> None:
        _Arguments(
            prog=f"python -m stages.{script.stem}",
            description=sys.modules["__main__"].__doc__,
            epilog="Its parameters are in params.yaml. 'dvc repro' runs it where something has changed.",
        ).parse_args()
        parent.watch()
        record.begin(script.stem)
        main()
        record.verify("run the command again")

    errors.run(stage)


class _Arguments(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}: {self.prog} takes no arguments, its parameters are in params.yaml")
