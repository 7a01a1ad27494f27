"""How a stage runs, from its arguments to its end."""

import argparse
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from stages.common import errors, parent, record
from stages.common.errors import UserError
from stages.common.params import PARAMS, Section, load


def run(main: Callable[[], None], section: type[Section] | None = None, key: str = "") -> None:
    """Run ``main`` of a stage's script; it ends as `errors.run` has it.

    With status 0 only where the parameters, the code and the files that it worked with are still there,
    since DVC records what is there; and only as long as the DVC that started it lives.

    Where ``dvc.yaml`` chooses a dependency by a ``key`` of ``section``, it gives the value as an argument:
    DVC has read it before its first stage ran, and another value by now means another dependency.
    """
    script = Path(inspect.getfile(main))

    def stage() -> None:
        parser = _Arguments(
            prog=f"python -m stages.{script.stem}",
            description=sys.modules["__main__"].__doc__,
            epilog="Its parameters are in params.yaml. 'dvc repro' runs it where something has changed.",
            allow_abbrev=False,
        )
        if section:
            parser.add_argument(key, nargs="?", help=f"{section.name}.{key} as DVC has read it")
        given = getattr(parser.parse_args(), key, None)
        parent.watch()
        record.begin(script.stem)
        if section and given is not None and (now := getattr(load(section), key)) != given:
            name = f"{section.name}.{key}"
            raise UserError(
                f"{name} is {given!r} in the command and {now!r} in {PARAMS}, which was changed after DVC "
                "had read it: run the command again"
                if parent.PARENT
                else f"{key} is {given!r}, but must be as in {PARAMS}, {now!r}: set {name} there"
            )
        main()
        record.verify("put it back or leave it, then run the command again")

    errors.run(stage)


class _Arguments(argparse.ArgumentParser):
    """Whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(
            f"{message}: {self.prog} has its parameters in params.yaml, and says with --help what it takes"
        )
