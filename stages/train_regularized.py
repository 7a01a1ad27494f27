"""Sheet b.5: the CNN on augmented images, regularized."""

from stages.study.augmentation import Augmentation
from stages.study.dataset import load_data
from stages.study.errors import run
from stages.study.models import CNN
from stages.study.params import load
from stages.study.results import train_and_write
from stages.study.runtime import prepare
from stages.study.training import Methods


def main() -> None:
    params = load()
    runtime = prepare(params.train)
    data = load_data()
    augmentation = Augmentation(params.aug.crop_pad, params.aug.flip, params.aug.brightness)
    cnn, reg = params.cnn, params.reg
    model = CNN(cnn.blocks, cnn.kernel_size, cnn.padding, reg.batch_norm, reg.dropout, cnn.relu_logits)
    methods = Methods(reg.label_smoothing, reg.weight_decay, reg.one_cycle_peak, reg.averaging)
    train_and_write("regularized", model, data, params.train, runtime, augmentation, methods)


if __name__ == "__main__":
    run(main)
