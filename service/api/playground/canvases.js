// Pictures by code: strokes, crops, noise, and a scene that is none of anybody's labels.

export const SIDE = 560; // of the drawing area, in pixels of its own
const PEN = SIDE * 0.075;
const FILLED = 20 / 28; // share of the crop that a drawing takes, as handwriting is usually framed
const LEAST_CROP = SIDE * 0.3;
const PAPER = "#fff";
const INK = "#111";

/** Return a white canvas. */
export function blank(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  context.fillStyle = PAPER;
  context.fillRect(0, 0, width, height);
  return canvas;
}

export function paintStrokes(context, strokes) {
  context.strokeStyle = INK;
  context.lineWidth = PEN;
  context.lineCap = "round";
  context.lineJoin = "round";
  for (const stroke of strokes) {
    context.beginPath();
    context.moveTo(...stroke[0]);
    for (const point of stroke) context.lineTo(...point);
    context.stroke();
  }
}

/** Return the square around what was drawn, with a margin, `side` pixels wide. */
export function cropped(strokes, side) {
  const points = strokes.flat();
  const [left, right] = extent(points.map(([x]) => x));
  const [top, bottom] = extent(points.map(([, y]) => y));
  const wide = Math.max(right - left, bottom - top) + PEN;
  const crop = Math.max(LEAST_CROP, wide / FILLED);
  const canvas = blank(side, side);
  const context = canvas.getContext("2d");
  context.scale(side / crop, side / crop);
  context.translate(crop / 2 - (left + right) / 2, crop / 2 - (top + bottom) / 2);
  paintStrokes(context, strokes);
  return canvas;
}

const extent = (values) => [Math.min(...values), Math.max(...values)];

/** Return a picture in a frame of another shape, its proportions kept. */
export function fitted(source, width, height) {
  const canvas = blank(width, height);
  const context = canvas.getContext("2d");
  const scale = Math.min(width / source.width, height / source.height);
  const [wide, high] = [source.width * scale, source.height * scale];
  context.imageSmoothingEnabled = scale < 1;
  context.imageSmoothingQuality = "high";
  context.drawImage(source, (width - wide) / 2, (height - high) / 2, wide, high);
  return canvas;
}

/** Return the canvas of rows of pixels, grey or of three colours. */
export function fromInstance(rows, channels) {
  return painted(rows[0].length, rows.length, (x, y) =>
    channels === 1 ? [rows[y][x], rows[y][x], rows[y][x]] : rows[y][x]);
}

function painted(width, height, colour) {
  const canvas = blank(width, height);
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      image.data.set([...colour(x, y), 255], 4 * (y * width + x));
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

export function noise(width, height) {
  return painted(width, height, () => {
    const value = Math.floor(Math.random() * 256);
    return [value, value, value];
  });
}

export function inverted(source) {
  const { width, height } = source;
  const { data } = source.getContext("2d").getImageData(0, 0, width, height);
  return painted(width, height, (x, y) => {
    const place = 4 * (y * width + x);
    return [255 - data[place], 255 - data[place + 1], 255 - data[place + 2]];
  });
}

/** Return a line back and forth that means nothing; another number, another scribble. */
export function scribble(number) {
  const stroke = [];
  for (let step = 0; step <= 60; step += 1) {
    const turn = step / 60;
    const x = 0.5 + 0.36 * Math.sin(turn * 29 + number) * Math.cos(turn * 3.1 * number);
    const y = 0.5 + 0.36 * Math.sin(turn * 23 + 2 * number + 1);
    stroke.push([x * SIDE, y * SIDE]);
  }
  return [stroke];
}

/** Return a sunny evening over hills. */
export function landscape(side) {
  const canvas = blank(side, side);
  const context = canvas.getContext("2d");
  const sky = context.createLinearGradient(0, 0, 0, side);
  sky.addColorStop(0, "#274b7a");
  sky.addColorStop(0.55, "#f0a26b");
  sky.addColorStop(1, "#f7d9a8");
  context.fillStyle = sky;
  context.fillRect(0, 0, side, side);
  context.fillStyle = "#fff1c9";
  context.beginPath();
  context.arc(side * 0.68, side * 0.42, side * 0.09, 0, 2 * Math.PI);
  context.fill();
  for (const [base, colour, waves] of [[0.58, "#5a6f86", 5], [0.7, "#3d5a52", 3], [0.84, "#23402f", 4]]) {
    context.fillStyle = colour;
    context.beginPath();
    context.moveTo(0, side);
    for (let x = 0; x <= side; x += 1) {
      context.lineTo(x, side * (base + 0.06 * Math.sin((x / side) * waves * 2 + base * 20)));
    }
    context.lineTo(side, side);
    context.fill();
  }
  return canvas;
}

/** Return a picture on a canvas whose longer side is at most `side`. */
export function limited(source, side) {
  const [width, height] = [source.videoWidth || source.width, source.videoHeight || source.height];
  const scale = Math.min(1, side / Math.max(width, height));
  const canvas = blank(Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale)));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  return canvas;
}
