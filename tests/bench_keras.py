"""The sheet's CNN in Keras 3 on TensorFlow, for ``tests.bench``: mixed bf16, a ``tf.data`` pipeline.

Run by that script with a Python that has Keras; for each line on standard input it trains some steps and
prints images per second. The step is the one of ``Model.fit``.
"""

import os
import sys
import time

os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}

import keras
import numpy as np
import tensorflow as tf
from keras import layers

BATCH, STEPS, AUGMENTED = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] == ["augmented"]
COUNT, PAD = 10_000, 2
MEAN, DEVIATION = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


def prepared(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """An image (32, 32, 3) uint8, cropped and flipped if `AUGMENTED`, normalized."""
    if AUGMENTED:
        padded = tf.pad(image, [[PAD, PAD], [PAD, PAD], [0, 0]])
        image = tf.image.random_flip_left_right(tf.image.random_crop(padded, (32, 32, 3)))
    return (tf.cast(image, tf.float32) / 255 - MEAN) / DEVIATION, label


generator = np.random.default_rng(0)
pixels = generator.integers(0, 256, (COUNT, 32, 32, 3), np.uint8)
dataset = (
    tf.data.Dataset.from_tensor_slices((pixels, generator.integers(0, 10, COUNT)))
    .cache()
    .shuffle(COUNT)
    .repeat()
    .map(prepared, num_parallel_calls=tf.data.AUTOTUNE)
    .batch(BATCH, drop_remainder=True)
    .prefetch(tf.data.AUTOTUNE)
)
keras.mixed_precision.set_global_policy("mixed_bfloat16")
model = keras.Sequential(
    [
        layers.Input((32, 32, 3)),
        *(layers.Conv2D(32, 3, activation="relu") for _ in range(2)),
        layers.MaxPooling2D(),
        *(layers.Conv2D(64, 3, activation="relu") for _ in range(2)),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(10, dtype="float32"),
    ]
)
model.compile(
    keras.optimizers.Adam(5e-4, beta_1=0.9, beta_2=0.95),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    jit_compile=False,  # XLA is slower here by more than half
)
model.make_train_function()
batches = iter(dataset)
for _ in sys.stdin:
    start = time.perf_counter()
    for _ in range(STEPS):
        logs = model.train_function(batches)
    float(np.asarray(logs["loss"]))  # waits for the last step
    print(STEPS * BATCH / (time.perf_counter() - start), flush=True)
