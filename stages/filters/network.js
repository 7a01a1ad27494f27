"use strict";
/**
 * A CNN in evaluation mode, forwards and backwards: the formulas of docs/theory.md, theory a.
 *
 * A picture or an activation is a Float32Array (channels, side, side), channel by channel and row by row. A layer
 * is what `explorer.py` writes of it, with its numbers decoded.
 */

/** The bytes that `text` encodes in base64. */
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

/** Little-endian float32 numbers in base64. */
const floats = (text) => new Float32Array(bytes(text).buffer);

/** The layers as they stand in the page, their numbers decoded, and the `places` of each convolution. */
function decodeLayers(layers) {
  const decoded = ["weight", "bias", "scale", "shift"];
  return layers.map((layer) => ({
    ...Object.fromEntries(Object.entries(layer).map(([key, value]) => [key, decoded.includes(key) ? floats(value) : value])),
    ...(layer.kind === "conv" ? { places: places(layer) } : {}),
  }));
}

/** Pixels (32, 32, 3) from 0 to 255, normalized as in training; the hidden ones are 0, the training mean. */
function normalize(rgb, mean, std, hidden = null) {
  const count = rgb.length / 3;
  const picture = new Float32Array(rgb.length);
  for (let pixel = 0; pixel < count; pixel++) {
    for (let colour = 0; colour < 3 && !(hidden && hidden[pixel]); colour++) {
      picture[colour * count + pixel] = (rgb[3 * pixel + colour] / 255 - mean[colour]) / std[colour];
    }
  }
  return picture;
}

/** Where in the input each unit reads under each weight of a filter: (inputs, kernel, kernel, side, side); outside: -1. */
function places({ inputs, kernel, pad, input, side }) {
  const inside = (place) => place >= 0 && place < input;
  return Int32Array.from({ length: inputs * kernel * kernel * side * side }, (_, index) => {
    const column = index % side, row = Math.floor(index / side) % side, term = Math.floor(index / (side * side));
    const y = row + Math.floor(term / kernel) % kernel - pad, x = column + (term % kernel) - pad;
    return inside(y) && inside(x) ? (Math.floor(term / (kernel * kernel)) * input + y) * input + x : -1;
  });
}

/** The product of matrices: weight(row, term) of `rows` x `terms` with `from`, (terms, units). */
function product(rows, terms, units, weight, from) {
  const to = new Float64Array(rows * units);
  for (let row = 0; row < rows; row++) {
    for (let term = 0; term < terms; term += 4) { // four at once: each sum is read and written less often
      const factor = (more) => (term + more < terms ? weight(row, term + more) : 0);
      const start = (more) => Math.min(term + more, terms - 1) * units;
      const a = factor(0), b = factor(1), c = factor(2), d = factor(3);
      const i = start(0), j = start(1), k = start(2), l = start(3);
      for (let unit = 0, at = row * units; unit < units; unit++, at++) {
        to[at] += a * from[i + unit] + b * from[j + unit] + c * from[k + unit] + d * from[l + unit];
      }
    }
  }
  return to;
}

function convolve(layer, from) {
  const { inputs, outputs, kernel, side, weight, bias, places } = layer, terms = inputs * kernel * kernel;
  const read = new Float64Array(places.length), size = side * side;
  for (let index = 0; index < read.length; index++) read[index] = places[index] < 0 ? 0 : from[places[index]];
  const to = product(outputs, terms, size, (out, term) => weight[out * terms + term], read);
  return eachChannel(outputs, to, (sum, out) => sum + (bias ? bias[out] : 0));
}

/** Theory a.1 for the input in place of the kernel: each unit gives its gradient to the pixels that it has read. */
function convolveBack(layer, gradient) {
  const { inputs, outputs, kernel, input, side, weight } = layer, terms = inputs * kernel * kernel;
  const given = product(terms, outputs, side * side, (term, out) => weight[out * terms + term], gradient);
  const back = new Float32Array(inputs * input * input);
  layer.places.forEach((place, index) => { if (place >= 0) back[place] += given[index]; });
  return back;
}

/** Where the largest pixel of each window of 2 x 2 stands; of equal ones the first in reading order. */
function largest({ channels, input, side }, from) {
  const places = new Int32Array(channels * side * side);
  for (let unit = 0; unit < places.length; unit++) {
    const channel = Math.floor(unit / (side * side)), row = Math.floor(unit / side) % side, column = unit % side;
    const first = (channel * input + 2 * row) * input + 2 * column;
    let best = first;
    for (const place of [first + 1, first + input, first + input + 1]) if (from[place] > from[best]) best = place;
    places[unit] = best;
  }
  return places;
}

/** What `of(value, channel)` gives for each unit of an activation of so many `channels`. */
function eachChannel(channels, from, of) {
  const to = new Float32Array(from.length), size = from.length / channels;
  for (let channel = 0, unit = 0; channel < channels; channel++) {
    for (const end = (channel + 1) * size; unit < end; unit++) to[unit] = of(from[unit], channel);
  }
  return to;
}

const FORWARD = {
  conv: convolve,
  norm: ({ scale, shift }, from) => eachChannel(scale.length, from, (value, channel) => value * scale[channel] + shift[channel]),
  relu: (_, from) => eachChannel(1, from, (value) => (value > 0 ? value : 0)),
  pool: (layer, from) => Float32Array.from(largest(layer, from), (place) => from[place]),
  dense: ({ weight, bias }, from) =>
    bias.map((value, out) => from.reduce((sum, activation, unit) => sum + activation * weight[out * from.length + unit], value)),
};

const BACKWARD = {
  conv: (layer, gradient) => convolveBack(layer, gradient),
  norm: ({ scale }, gradient) => eachChannel(scale.length, gradient, (value, channel) => value * scale[channel]),
  relu: (_, gradient, from, to) => gradient.map((value, unit) => (to[unit] > 0 ? value : 0)),
  pool: (layer, gradient, from) => {
    const back = new Float32Array(from.length);
    largest(layer, from).forEach((place, unit) => { back[place] += gradient[unit]; });
    return back;
  },
  dense: ({ weight }, gradient, from) =>
    from.map((_, unit) => gradient.reduce((sum, value, out) => sum + value * weight[out * from.length + unit], 0)),
};

/**
 * What each layer gives for `picture`, the logits last. `off` holds the channels that are switched off, by the number
 * of their convolution: their activations are 0.
 */
function forward(layers, picture, off = []) {
  const outputs = [];
  let current = picture, convolution = -1;
  for (const layer of layers) {
    current = FORWARD[layer.kind](layer, current);
    if (layer.kind === "conv") convolution++;
    if (layer.kind === "relu" && layer.name !== "logits_relu") {
      const size = layer.side * layer.side;
      for (const channel of off[convolution] || []) current.fill(0, channel * size, (channel + 1) * size);
    }
    outputs.push(current);
  }
  return outputs;
}

/** The gradient of logit `number` with respect to `picture`, of which `outputs` are what `forward` gave. */
function backward(layers, picture, outputs, number) {
  let gradient = new Float32Array(outputs.at(-1).length);
  gradient[number] = 1;
  for (let at = layers.length - 1; at >= 0; at--) {
    gradient = BACKWARD[layers[at].kind](layers[at], gradient, at ? outputs[at - 1] : picture, outputs[at]);
  }
  return gradient;
}

function softmax(logits) {
  const most = Math.max(...logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - most));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

/**
 * The mean drop of logit `number` over the windows of 8 x 8 pixels that hide a pixel (32, 32), as in evidence.py. Between
 * two windows it lets the page go on, and stops where `current` says that nobody waits for it any more.
 */
async function occlusion(layers, picture, number, off, current) {
  const side = 32, size = side * side;
  const evidence = new Float32Array(size), times = new Float32Array(size);
  const whole = forward(layers, picture, off).at(-1)[number];
  for (let top = -4; top < side; top += 4) {
    for (let left = -4; left < side; left += 4) {
      await new Promise((resume) => setTimeout(resume));
      if (!current()) return null;
      const hidden = picture.slice();
      const pixels = [];
      for (let row = Math.max(0, top); row < Math.min(side, top + 8); row++) {
        for (let column = Math.max(0, left); column < Math.min(side, left + 8); column++) pixels.push(row * side + column);
      }
      for (const pixel of pixels) hidden[pixel] = hidden[size + pixel] = hidden[2 * size + pixel] = 0;
      const drop = whole - forward(layers, hidden, off).at(-1)[number];
      for (const pixel of pixels) {
        evidence[pixel] += drop;
        times[pixel] += 1;
      }
    }
  }
  return evidence.map((sum, pixel) => sum / times[pixel]);
}
