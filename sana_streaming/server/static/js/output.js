// Edited frames, however they came, drawn without their stripe; and the time that they took from glass to glass.

import { Reader, ROWS } from "./stamp.js";

const RECENT = 60; // frames that the latency is told of
const EDGE = 2; // rows at the bottom of the picture into which codecs smear the stripe

export class Output {
  constructor(canvas, times) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
    this.times = times; // by stamp, when the source's frame was drawn
    this.reader = new Reader();
    this.last = null;
    this.delays = [];
    this.onfirst = () => {};
    this.onstamp = () => {};
    this.shown = 0;
  }

  resize(width, height) {
    this.delays = [];
    if (this.canvas.width === width && this.canvas.height === height) return;
    this.canvas.width = width;
    this.canvas.height = height;
  }

  // An image of the given size, picture and stripe, that is seen at `now` (ms).
  show(image, width, height, now) {
    const { width: columns, height: rows } = this.canvas;
    const picture = (height * rows) / (rows + ROWS);
    this.context.drawImage(image, 0, 0, width, picture, 0, 0, columns, rows);
    const above = picture - ((EDGE + 1) * picture) / rows;
    this.context.drawImage(image, 0, above, width, 1, 0, rows - EDGE, columns, EDGE);
    if (!this.shown++) this.onfirst();
    const stamp = this.reader.read(image, width, picture, height);
    if (stamp === null || stamp === this.last) return;
    this.last = stamp;
    this.onstamp(stamp);
    const delay = now - this.times[stamp];
    if (this.times[stamp] && delay > 0 && delay < 60_000) this.delays.push(delay);
    if (this.delays.length > RECENT) this.delays.shift();
  }

  // Median of the latest frames, ms.
  get delay() {
    const sorted = [...this.delays].sort((a, b) => a - b);
    return sorted.length ? sorted[sorted.length >> 1] : null;
  }
}
