"""Sheet a.2: the CNN."""

from stages.study.dataset import load_data
from stages.study.errors import run
from stages.study.models import CNN
from stages.study.params import load
from stages.study.results import train_and_write
from stages.study.runtime import prepare


def main() -> None:
    params = load()
    runtime = prepare(params.train)
    data = load_data()
    cnn = params.cnn
    model = CNN(cnn.blocks, cnn.kernel_size, cnn.padding, relu_logits=cnn.relu_logits)
    train_and_write("cnn", model, data, params.train, runtime)


if __name__ == "__main__":
    run(main)
