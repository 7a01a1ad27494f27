"""Sheet a.1: the baseline, an MLP with batch normalization."""

from stages.study.dataset import load_data
from stages.study.errors import run
from stages.study.models import MLP
from stages.study.params import load
from stages.study.results import train_and_write
from stages.study.runtime import prepare


def main() -> None:
    params = load()
    runtime = prepare(params.train)
    data = load_data()
    model = MLP(params.baseline.hidden)
    train_and_write("baseline", model, data, params.train, runtime)


if __name__ == "__main__":
    run(main)
