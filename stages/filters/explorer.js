"use strict";
/** The page's state, what it draws, and what a click does. The network itself is in network.js. */
const data = JSON.parse(document.getElementById("data").textContent);
const network = decodeLayers(data.network);
const SIDE = 32, PIXELS = SIDE * SIDE;
const $ = (id) => document.getElementById(id);
const lut = Object.fromEntries(Object.entries(data.lut).map(([name, text]) => [name, bytes(text)]));
const convolutions = network.flatMap((layer, at) => (layer.kind === "conv" ? [at] : []));
// the activation of each convolution: the next ReLU's output
const relus = convolutions.map((at) => network.findIndex((layer, place) => place > at && layer.kind === "relu"));

const state = {
  image: 0, // of data.images; null: the user's own `picture`
  picture: null,
  rgb: new Uint8Array(3 * PIXELS), // as it is shown and classified
  hidden: new Uint8Array(PIXELS),
  name: "",
  tool: matchMedia("(pointer: coarse)").matches ? null : "hide", // null: a finger on the picture scrolls
  cursor: { x: 16, y: 16 },
  layer: 0, channel: 0, unit: null, // of the chosen channel; null: the most active one
  common: false,
  off: data.layers.map(() => new Set()),
  which: null, // the class whose maps are shown; null: the predicted one
};
let sources = []; // of data.images
let result = null; // of the last forward pass

/** The ten logits of a picture `rgb` (32, 32, 3) from 0 to 255, for whoever wants to check or use them. */
window.explorer = {
  classes: data.classes,
  logits: async (rgb) => Array.from(forward(network, normalize(rgb, data.mean, data.std)).at(-1)),
  gradient: async (rgb, number) => {
    const picture = normalize(rgb, data.mean, data.std);
    return Array.from(backward(network, picture, forward(network, picture), number));
  },
};

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
/** Right and down, as an arrow key says; with others it is the browser's. */
const arrow = (event) => (event.altKey || event.ctrlKey || event.metaKey ? undefined : STEPS[event.key]);

// Drawing

const entry = (table, level) => {
  const index = 3 * Math.max(0, Math.min(255, Math.round(level)));
  return table.subarray(index, index + 3);
};
const viridis = (value, largest) => entry(lut.viridis, largest ? (255 * value) / largest : 0);
const diverging = (value, largest) => entry(lut.RdBu_r, 127.5 + (largest ? (127.5 * value) / largest : 0));

/** Fill `canvas` of `width` x `height` with the colour that `of(x, y)` gives. */
function fill(canvas, width, height, of) {
  canvas.width = width;
  canvas.height = height;
  const out = new ImageData(width, height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      out.data.set(of(x, y), 4 * (y * width + x));
      out.data[4 * (y * width + x) + 3] = 255;
    }
  }
  canvas.getContext("2d").putImageData(out, 0, 0);
}

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** The pixels of a PNG, (height, width, 4). */
async function pixels(png) {
  const image = new Image();
  image.src = "data:image/png;base64," + png;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = image.width;
  canvas.height = image.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, image.width, image.height);
}

/** The tile of `source` with its corner at (x, y), as (height, width, 3). */
function tile(source, x, y, width, height) {
  const out = new Uint8Array(3 * width * height);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const from = 4 * ((y + row) * source.width + x + column);
      out.set(source.data.subarray(from, from + 3), 3 * (row * width + column));
    }
  }
  return out;
}

// What is shown

/** Run the network on the picture, and show everything that depends on it. */
function run() {
  const began = performance.now();
  const picture = normalize(state.rgb, data.mean, data.std, state.hidden);
  const outputs = forward(network, picture, state.off);
  const took = performance.now() - began;
  const logits = outputs.at(-1), probabilities = softmax(logits);
  const order = Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a]);
  result = { picture, outputs, logits, probabilities, order };
  $("speed").textContent = `The network took ${took.toFixed(0)} ms.`;
  showAnswer();
  showPicture();
  showLayers();
  showMaps();
}

function label() {
  return state.image === null ? null : data.images[state.image].label;
}

function showAnswer() {
  const { logits, probabilities, order } = result;
  const truth = label();
  const what = truth === null ? state.name : `Test image ${data.images[state.image].index}: ${data.classes[truth]}`;
  $("chosen-title").textContent = `${what}, predicted ${data.classes[order[0]]}`;
  $("bars").replaceChildren(...order.flatMap((c) => {
    const bar = element("i", "", { class: c === truth ? "true" : "", "aria-hidden": "true" });
    bar.style.width = `${100 * probabilities[c]}%`;
    const share = element("span", `${(100 * probabilities[c]).toFixed(1)} %`);
    return [element("span", data.classes[c]), bar, share, element("span", decimals(logits[c], 2), { class: "soft", title: "logit" })];
  }));
  const off = state.off.reduce((count, channels) => count + channels.size, 0);
  $("switched").hidden = !off;
  $("switched-count").textContent = `${off} of the network's channels ${off === 1 ? "is" : "are"} switched off.`;
  $("which").options[0].textContent = `the prediction (${data.classes[order[0]]})`;
}

function showPicture() {
  const scale = 8;
  const chosen = document.activeElement === $("picture") ? state.cursor : null;
  fill($("picture"), SIDE * scale, SIDE * scale, (x, y) => {
    const column = Math.floor(x / scale), row = Math.floor(y / scale), pixel = row * SIDE + column;
    if (!state.hidden[pixel]) return state.rgb.subarray(3 * pixel, 3 * pixel + 3);
    return (x + y) % 8 < 2 ? [255, 255, 255] : data.mean.map((value) => 255 * value);
  });
  const context = $("picture").getContext("2d");
  const { first, size } = field();
  context.lineWidth = 2;
  context.strokeStyle = "#ff00a0";
  context.strokeRect(first.x * scale, first.y * scale, size * scale, size * scale);
  for (const [colour, width] of chosen ? [["#000000", 4], ["#ffffff", 2]] : []) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.strokeRect(chosen.x * scale, chosen.y * scale, scale, scale);
  }
  $("picture").setAttribute("aria-label", `${$("chosen-title").textContent}. Frame: what the chosen unit sees`);
}

/** The pixels that the chosen unit sees. */
function field() {
  const layer = data.layers[state.layer], { x, y } = unit();
  return { size: layer.field, first: { x: layer.start + x * layer.stride, y: layer.start + y * layer.stride } };
}

/** The activation of a channel, (side, side). */
function activation(layer, channel) {
  const side = network[convolutions[layer]].side;
  return result.outputs[relus[layer]].subarray(channel * side * side, (channel + 1) * side * side);
}

const largestOf = (values) => values.reduce((a, b) => Math.max(a, b), 0);

/** The place of the chosen unit in its channel: the one that was picked, or the most active. */
function unit() {
  const side = network[convolutions[state.layer]].side;
  if (state.unit) return { x: Math.min(state.unit.x, side - 1), y: Math.min(state.unit.y, side - 1) };
  const values = activation(state.layer, state.channel);
  const place = values.indexOf(largestOf(values));
  return { x: place % side, y: Math.floor(place / side) };
}

/** The value that is brightest in a layer's pictures. */
function brightest(layer) {
  return largestOf((state.common ? relus : [relus[layer]]).map((at) => largestOf(result.outputs[at])));
}

function showLayers() {
  data.layers.forEach((layer, number) => {
    const side = network[convolutions[number]].side, largest = brightest(number);
    document.querySelectorAll(`#layer-${number} button`).forEach((button, channel) => {
      const values = activation(number, channel);
      fill(button.firstChild, side, side, (x, y) => viridis(values[y * side + x], largest));
      button.classList.toggle("off", state.off[number].has(channel));
    });
  });
  $("common").setAttribute("aria-pressed", String(state.common));
  $("own").setAttribute("aria-pressed", String(!state.common));
  showChannel();
}

function showChannel() {
  const { layer: number, channel } = state;
  const layer = data.layers[number], side = network[convolutions[number]].side;
  const values = activation(number, channel), largest = brightest(number);
  $("channel-title").textContent = `${layer.name}, channel ${channel}`;
  $("off").setAttribute("aria-pressed", String(state.off[number].has(channel)));
  const scale = Math.max(1, Math.round(180 / side)), { x, y } = unit();
  fill($("activation"), side * scale, side * scale, (a, b) =>
    viridis(values[Math.floor(b / scale) * side + Math.floor(a / scale)], largest));
  const context = $("activation").getContext("2d");
  context.lineWidth = 2;
  context.strokeStyle = "#ff00a0";
  context.strokeRect(x * scale, y * scale, scale, scale);
  const rows = [
    ["active (share of images and positions)", `${(100 * layer.active[channel]).toFixed(2)} %`],
    ["mean activation", layer.mean[channel].toFixed(3)],
    ["largest activation", layer.maximum[channel].toFixed(2)],
  ];
  $("statistics").replaceChildren(...rows.flatMap(([term, value]) => [element("dt", term), element("dd", value)]));
  showSum();
  document.querySelectorAll(".channels button").forEach((button) => {
    const chosen = button.dataset.layer === String(number) && button.dataset.channel === String(channel);
    button.setAttribute("aria-pressed", String(chosen));
  });
}

/** The chosen unit's activation as the sum that it is: input under the kernel, kernel, products. */
function showSum() {
  const { layer: number, channel } = state, { x, y } = unit();
  const at = convolutions[number], conv = network[at];
  const { inputs, kernel, side, weight, bias, places } = conv;
  const from = at ? result.outputs[at - 1] : result.picture;
  const square = kernel * kernel;
  const under = new Float32Array(inputs * square), products = new Float32Array(inputs * square);
  const weights = weight.subarray(channel * inputs * square, (channel + 1) * inputs * square);
  for (let term = 0; term < under.length; term++) {
    const place = places[(term * side + y) * side + x];
    under[term] = place < 0 ? 0 : from[place];
    products[term] = under[term] * weights[term];
  }
  const sum = products.reduce((a, b) => a + b, 0);
  const parts = [`the sum of ${under.length} products, ${decimals(sum)}`];
  let value = sum;
  if (bias) {
    value += bias[channel];
    parts.push(`bias ${signed(bias[channel])}`);
  }
  const norm = network[at + 1].kind === "norm" ? network[at + 1] : null;
  if (norm) {
    value = value * norm.scale[channel] + norm.shift[channel];
    parts.push(`× ${decimals(norm.scale[channel])} ${signed(norm.shift[channel])} (batch norm)`);
  }
  const out = state.off[number].has(channel) ? "switched off: 0" : `ReLU gives ${Math.max(0, value).toFixed(3)}`;
  const nowhere = largestOf(activation(number, channel)) === 0 ? "Active nowhere in this picture. " : "";
  $("sum").textContent = `${nowhere}Row ${y}, column ${x}: ${[...parts, `= ${decimals(value)}`, out].join(", ")}`;
  $("sum").dataset.value = String(Math.max(0, value));

  const columns = inputs <= 4 ? inputs : Math.ceil(Math.sqrt(2 * inputs)), step = kernel + 1;
  $("terms").classList.toggle("many", inputs > 4); // or the tiles would be too small
  const draw = (id, values) => {
    const largest = values.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
    fill($(id), columns * step - 1, Math.ceil(inputs / columns) * step - 1, (a, b) => {
      const slice = Math.floor(b / step) * columns + Math.floor(a / step);
      const term = slice * square + (b % step) * kernel + (a % step);
      const gap = a % step === kernel || b % step === kernel || slice >= inputs;
      return gap ? [127, 127, 127] : diverging(values[term], largest);
    });
    $(id).title = `one tile for each of ${inputs} input channels; blue −${largest.toFixed(2)}, red +${largest.toFixed(2)}`;
  };
  draw("under", under);
  draw("kernel", weights);
  draw("products", products);
  if ($("table").closest("details").open) {
    const head = element("tr", "");
    const titles = ["channel", "row", "column", "input", "weight", "product"];
    head.append(...titles.map((text) => element("th", text)));
    const total = element("tr", "");
    total.append(element("th", "sum", { colspan: titles.length - 1 }), element("th", decimals(sum)));
    $("table").replaceChildren(head, ...Array.from(products, (product, term) => {
      const row = element("tr", "");
      const place = [Math.floor(term / square), Math.floor(term / kernel) % kernel, term % kernel];
      const numbers = [...place, ...[under[term], weights[term], product].map((value) => decimals(value))];
      row.append(...numbers.map((text) => element("td", String(text))));
      return row;
    }), total);
  }
}

const decimals = (value, digits = 3) => value.toFixed(digits).replace("-", "−");
const signed = (value) => `${value < 0 ? "−" : "+"} ${Math.abs(value).toFixed(3)}`;

/** What of a channel does not depend on the picture. */
async function showTops() {
  const { layer: number, channel } = state;
  const layer = data.layers[number];
  layer.source = layer.source || pixels(layer.patches);
  const source = await layer.source;
  if (state.layer !== number || state.channel !== channel) return;
  $("tops-note").textContent = layer.maximum[channel] === 0 ? "none: it is active on no test image" :
    `${layer.field}×${layer.field} pixels, pink: outside the image; below, the activation and the image's number`;
  $("tops").replaceChildren(...layer.values[channel].filter((value) => value > 0).map((value, place) => {
    const box = element("div", "");
    const patch = element("canvas", "", { role: "img", "aria-label": `Patch of test image ${layer.tops[channel][place]}` });
    const colours = tile(source, place * layer.patch, channel * layer.patch, layer.patch, layer.patch);
    fill(patch, layer.patch, layer.patch, (x, y) => colours.subarray(3 * (y * layer.patch + x), 3 * (y * layer.patch + x) + 3));
    box.append(patch, element("span", `${value.toFixed(2)} · image ${layer.tops[channel][place]}`));
    return box;
  }));
}

let asked = 0; // for how many pictures of what is hidden; only the last is worth finishing

async function showMaps() {
  const number = state.which === null ? result.order[0] : state.which;
  const gradient = backward(network, result.picture, result.outputs, number);
  const strength = Float32Array.from({ length: PIXELS }, (_, pixel) =>
    Math.hypot(gradient[pixel], gradient[PIXELS + pixel], gradient[2 * PIXELS + pixel]));
  const most = largestOf(strength);
  fill($("gradient"), SIDE, SIDE, (x, y) => viridis(strength[y * SIDE + x], most));
  const turn = ++asked;
  document.body.setAttribute("aria-busy", "true");
  $("occlusion").classList.add("stale"); // that of the picture before
  $("occlusion-note").textContent = "Drop of the logit where 8×8 pixels are hidden: being computed …";
  const evidence = await occlusion(network, result.picture, number, state.off, () => turn === asked);
  if (turn !== asked) return;
  const [least, best] = [Math.min(0, ...evidence), Math.max(0, ...evidence)], largest = Math.max(-least, best);
  fill($("occlusion"), SIDE, SIDE, (x, y) => diverging(evidence[y * SIDE + x], largest));
  $("occlusion").classList.remove("stale");
  $("occlusion-note").textContent = largest === 0 ? "No pixels change the logit: every way to it is switched off." :
    `Drop of the logit where 8×8 pixels are hidden: red (up to ${best.toPrecision(2)}) speaks for it, ` +
    `blue (up to ${(-least).toPrecision(2)}) against it.`;
  document.body.setAttribute("aria-busy", "false");
}

// What changes

function pickImage(place) {
  Object.assign(state, { image: place, rgb: sources[place].slice(), hidden: new Uint8Array(PIXELS), unit: null });
  $("crop").hidden = true;
  document.querySelectorAll("#pick button").forEach((button, at) => button.setAttribute("aria-pressed", String(at === place)));
  run();
}

function pickChannel(layer, channel) {
  document.querySelector("aside").classList.add("picked");
  Object.assign(state, { layer, channel, unit: null });
  showChannel();
  showPicture();
  showTops();
}

let waiting = false; // for the next frame, to run once for all that the mouse did since the last

function soon() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    run();
  });
}

/** Apply the tool to the pixel at (x, y) and its neighbours, and run the network; without a tool nothing. */
function apply(x, y) {
  if (!state.tool) return;
  touch(x, y);
  run();
}

/** Apply the tool to the pixel at (x, y) and its neighbours. */
function touch(x, y) {
  const colour = [1, 3, 5].map((at) => parseInt($("colour").value.slice(at, at + 2), 16));
  for (let row = Math.max(0, y - 1); row <= Math.min(SIDE - 1, y + 1); row++) {
    for (let column = Math.max(0, x - 1); column <= Math.min(SIDE - 1, x + 1); column++) {
      const pixel = row * SIDE + column;
      if (state.tool === "paint") state.rgb.set(colour, 3 * pixel);
      state.hidden[pixel] = state.tool === "hide" ? 1 : 0;
    }
  }
}

/** Give each pixel what stands at the place that `source(x, y)` names; what comes from outside repeats the border. */
function move(source) {
  const rgb = new Uint8Array(3 * PIXELS), hidden = new Uint8Array(PIXELS);
  for (let y = 0; y < SIDE; y++) {
    for (let x = 0; x < SIDE; x++) {
      const [a, b] = source(x, y).map((place) => Math.max(0, Math.min(SIDE - 1, place)));
      rgb.set(state.rgb.subarray(3 * (b * SIDE + a), 3 * (b * SIDE + a) + 3), 3 * (y * SIDE + x));
      hidden[y * SIDE + x] = state.hidden[b * SIDE + a];
    }
  }
  Object.assign(state, { rgb, hidden });
  run();
}

/** Take the square of the user's picture that the slider names, scaled down. */
function crop() {
  const bitmap = state.picture, share = Number($("square").value) / 100;
  const side = Math.min(bitmap.width, bitmap.height);
  const left = (bitmap.width - side) * share, top = (bitmap.height - side) * share;
  const canvas = new OffscreenCanvas(SIDE, SIDE);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, SIDE, SIDE);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, left, top, side, side, 0, 0, SIDE, SIDE);
  const rgb = tile(context.getImageData(0, 0, SIDE, SIDE), 0, 0, SIDE, SIDE);
  const whole = $("whole"), scale = 140 / Math.max(bitmap.width, bitmap.height);
  whole.width = Math.max(1, Math.round(bitmap.width * scale));
  whole.height = Math.max(1, Math.round(bitmap.height * scale));
  const preview = whole.getContext("2d");
  preview.drawImage(bitmap, 0, 0, whole.width, whole.height);
  preview.lineWidth = 2;
  preview.strokeStyle = "#ff00a0";
  preview.strokeRect(left * scale + 1, top * scale + 1, side * scale - 2, side * scale - 2);
  Object.assign(state, { image: null, rgb, hidden: new Uint8Array(PIXELS), unit: null });
  document.querySelectorAll("#pick button").forEach((button) => button.setAttribute("aria-pressed", "false"));
  $("crop").hidden = false;
  run();
}

async function take(file) {
  try {
    state.picture = await createImageBitmap(file);
  } catch {
    $("chosen-title").textContent = `${file.name} is no picture that this browser can read`;
    return;
  }
  state.name = file.name;
  $("square").value = "50";
  crop();
}

const TOOLS = ["hide", "show", "paint"];

function takeTool(tool) {
  state.tool = tool;
  for (const other of TOOLS) $(other).setAttribute("aria-pressed", String(other === tool));
  $("picture").classList.toggle("tool", tool !== null);
}

/** Make the buttons of `grid` one Tab stop, within which the arrow keys go from one to the next. */
function rove(grid) {
  const buttons = [...grid.children];
  const stop = (chosen) => buttons.forEach((button) => { button.tabIndex = button === chosen ? 0 : -1; });
  stop(buttons[0]);
  grid.addEventListener("focusin", (event) => stop(event.target));
  grid.addEventListener("keydown", (event) => {
    if (!arrow(event)) return;
    event.preventDefault();
    const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
    const [right, down] = arrow(event);
    const next = buttons[buttons.indexOf(event.target) + right + down * columns];
    if (next) next.focus();
  });
}

function listen() {
  takeTool(state.tool);
  for (const tool of TOOLS) $(tool).addEventListener("click", () => takeTool(state.tool === tool ? null : tool));
  const place = (canvas, event, side) => {
    const box = canvas.getBoundingClientRect();
    const at = (offset, size) => Math.max(0, Math.min(side - 1, Math.floor((offset / size) * side)));
    return { x: at(event.clientX - box.left, box.width), y: at(event.clientY - box.top, box.height) };
  };
  $("picture").addEventListener("pointerdown", (event) => {
    if (state.tool) $("picture").setPointerCapture(event.pointerId);
    state.cursor = place($("picture"), event, SIDE);
    apply(state.cursor.x, state.cursor.y);
  });
  $("picture").addEventListener("pointermove", (event) => {
    if (!event.buttons || !state.tool) return;
    const { x, y } = state.cursor, to = place($("picture"), event, SIDE);
    const far = Math.max(Math.abs(to.x - x), Math.abs(to.y - y));
    const between = (from, until, step) => Math.round(from + ((until - from) * step) / far);
    for (let step = 1; step <= far; step++) touch(between(x, to.x, step), between(y, to.y, step)); // no gaps
    state.cursor = to;
    if (far) soon();
  });
  const stepped = ({ x, y }, [right, down], side) => ({
    x: Math.max(0, Math.min(side - 1, x + right)), y: Math.max(0, Math.min(side - 1, y + down)),
  });
  $("picture").addEventListener("keydown", (event) => {
    if (arrow(event)) state.cursor = stepped(state.cursor, arrow(event), SIDE);
    else if (event.key === " ") apply(state.cursor.x, state.cursor.y);
    else return;
    event.preventDefault();
    showPicture();
  });
  for (const kind of ["focus", "blur"]) $("picture").addEventListener(kind, showPicture);
  const shifts = { left: [1, 0], right: [-1, 0], up: [0, 1], down: [0, -1] };
  for (const [id, [x, y]] of Object.entries(shifts)) $(id).addEventListener("click", () => move((a, b) => [a + x, b + y]));
  $("mirror").addEventListener("click", () => move((x, y) => [SIDE - 1 - x, y]));
  $("reset").addEventListener("click", () => {
    state.off.forEach((channels) => channels.clear());
    if (state.image !== null) pickImage(state.image);
    else crop();
  });
  $("file").addEventListener("change", async () => {
    if ($("file").files.length) await take($("file").files[0]);
    $("file").value = ""; // so that the same file can be chosen again
  });
  $("square").addEventListener("input", crop);
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("drop");
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("drop"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("drop");
    if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) take(event.clipboardData.files[0]);
  });
  $("which").addEventListener("change", () => {
    state.which = $("which").value === "" ? null : Number($("which").value);
    showMaps();
  });
  $("common").addEventListener("click", () => { state.common = true; showLayers(); });
  $("own").addEventListener("click", () => { state.common = false; showLayers(); });
  const pickUnit = (x, y) => {
    state.unit = { x, y };
    showChannel();
    showPicture();
  };
  for (const kind of ["pointerdown", "pointermove"]) $("activation").addEventListener(kind, (event) => {
    if (!event.buttons) return;
    const { x, y } = place($("activation"), event, network[convolutions[state.layer]].side);
    pickUnit(x, y);
  });
  $("activation").addEventListener("keydown", (event) => {
    if (!arrow(event)) return;
    event.preventDefault();
    const { x, y } = stepped(unit(), arrow(event), network[convolutions[state.layer]].side);
    pickUnit(x, y);
  });
  $("table").closest("details").addEventListener("toggle", showSum);
  $("off").addEventListener("click", () => {
    const channels = state.off[state.layer];
    if (!channels.delete(state.channel)) channels.add(state.channel);
    run();
  });
  $("only").addEventListener("click", () => {
    const others = data.layers[state.layer].mean.map((_, channel) => channel).filter((c) => c !== state.channel);
    state.off[state.layer] = new Set(others);
    run();
  });
  const panel = document.querySelector("aside");
  const close = () => { // and back to the channel that it was about
    panel.classList.remove("picked");
    document.querySelector('.channels [aria-pressed="true"]').focus();
  };
  $("close").addEventListener("click", close);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && panel.classList.contains("picked")) close();
  });
  for (const id of ["all", "on"]) $(id).addEventListener("click", () => {
    state.off.forEach((channels) => channels.clear());
    run();
  });
}

async function start() {
  $("lead").textContent = `A small convolutional network that was trained to tell ten kinds of pictures apart, each of ` +
    `32×32 pixels: ${data.classes.join(", ")} (CIFAR-10). It knows nothing else, and names one of the ten whatever it is shown. ` +
    `The model “${data.model}” of this study runs here, in your browser; statistics and patches are of all ${data.tests} test images.`;
  const source = await pixels(data.inputs);
  sources = data.images.map((_, place) => tile(source, place * SIDE, 0, SIDE, SIDE));
  data.images.forEach((image, place) => {
    const text = `Test image ${image.index}: ${data.classes[image.label]}`;
    const button = element("button", "", { type: "button", "aria-label": text, title: text, "aria-pressed": "false" });
    const canvas = document.createElement("canvas");
    fill(canvas, SIDE, SIDE, (x, y) => sources[place].subarray(3 * (y * SIDE + x), 3 * (y * SIDE + x) + 3));
    button.append(canvas);
    button.addEventListener("click", () => pickImage(place));
    $("pick").append(button);
  });
  rove($("pick"));
  $("which").append(element("option", "the prediction", { value: "" }),
    ...data.classes.map((name, number) => element("option", name, { value: number })));
  data.layers.forEach((layer, number) => {
    const { side } = network[convolutions[number]];
    const section = document.createElement("section");
    const heading = element("h2", `${layer.name} `);
    const dead = layer.maximum.flatMap((most, channel) => (most === 0 ? [channel] : []));
    heading.append(element("small",
      `${layer.mean.length} channels of ${side}×${side} units, each sees ${layer.field}×${layer.field} pixels` +
      (dead.length ? `; active on no image: ${dead.join(", ")}` : "")));
    const grid = element("div", "", { class: "channels", id: `layer-${number}`, role: "toolbar", "aria-label": layer.name });
    layer.mean.forEach((_, channel) => {
      const button = element("button", "", {
        type: "button", "aria-pressed": "false", "aria-label": `${layer.name}, channel ${channel}`,
        "data-layer": number, "data-channel": channel,
      });
      button.append(document.createElement("canvas"), element("span", String(channel)));
      button.addEventListener("click", () => pickChannel(number, channel));
      grid.append(button);
    });
    rove(grid);
    section.append(heading, grid);
    $("layers").append(section);
  });
  listen();
  pickImage(0);
  await showTops();
}
start();
