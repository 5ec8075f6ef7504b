// The source's frames of the last moments, so that before and after show the same moment.

const BYTES = 96e6; // that frames may take
const MOST = 120;

export class Past {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
    this.frames = []; // { canvas, context, stamp }
  }

  resize(width, height) {
    this.width = this.canvas.width = width;
    this.height = this.canvas.height = height;
    this.forget();
    this.length = Math.max(8, Math.min(MOST, Math.floor(BYTES / (4 * width * height))));
  }

  keep(source, stamp) {
    const place = stamp % this.length;
    let frame = this.frames[place];
    if (!frame) {
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [this.width, this.height];
      frame = this.frames[place] = { canvas, context: canvas.getContext("2d", { alpha: false }) };
    }
    frame.context.drawImage(source, 0, 0);
    frame.stamp = stamp;
  }

  show(stamp) {
    const frame = this.frames[stamp % this.length];
    this.canvas.hidden = frame?.stamp !== stamp; // then the source of now is seen
    if (!this.canvas.hidden) this.context.drawImage(frame.canvas, 0, 0);
  }

  forget() {
    this.frames = [];
    this.canvas.hidden = true;
  }
}
