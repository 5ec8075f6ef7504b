// A number that travels under the picture. The twin of sana_streaming/server/stamp.py, which says how it is laid out.

const BITS = 16;
const BLOCKS = BITS + 4;
export const ROWS = 16;
const LAST = 65535;

const check = (value) => [0, 4, 8, 12].reduce((sum, shift) => sum + ((value >> shift) & 15), 0) % 16;
const edge = (i, width) => Math.floor((2 * i * width + BLOCKS) / (2 * BLOCKS));

export const next = (value) => (value % LAST) + 1;

export function draw(context, value, top, width, rows) {
  const word = (value * 16) + check(value);
  for (let i = 0; i < BLOCKS; i++) {
    const left = edge(i, width);
    context.fillStyle = (word >> (BLOCKS - 1 - i)) & 1 ? "#fff" : "#000";
    context.fillRect(left, top, edge(i + 1, width) - left, rows);
  }
}

// Reads stripes of any size, of a video or a bitmap.
export class Reader {
  constructor() {
    this.canvas = document.createElement("canvas");
    this.canvas.width = BLOCKS * 8;
    this.canvas.height = 4;
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
  }

  // The value of the stripe between two rows of an image, or null.
  read(image, width, top, bottom) {
    const quarter = (bottom - top) / 4; // the picture blurs into the edge
    this.context.drawImage(image, 0, top + quarter, width, 2 * quarter, 0, 0, this.canvas.width, this.canvas.height);
    const { width: columns, height: rows } = this.canvas;
    const { data } = this.context.getImageData(0, 0, columns, rows);
    let word = 0;
    for (let i = 0; i < BLOCKS; i++) {
      let sum = 0;
      for (let y = 0; y < rows; y++)
        for (let x = 8 * i + 2; x < 8 * i + 6; x++) sum += data[4 * (y * columns + x) + 1];
      word = word * 2 + (sum / (4 * rows) > 127.5 ? 1 : 0);
    }
    const value = word >> 4;
    return value && (word & 15) === check(value) ? value : null;
  }
}
