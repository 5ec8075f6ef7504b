// Pictures as JPEG over the control connection, where UDP does not get through. sana_streaming/server/websocket.py
// says how they are laid out.

const HEADER = 16;
const VIDEO = 1;
const QUALITY = 0.85;
const UNSENT = 300_000; // bytes that may wait for the line; frames are left out beyond
const ENCODING = 2;

export class Jpeg {
  name = "WebSocket";
  moving = true;

  constructor(control, output) {
    this.control = control;
    this.output = output;
    this.encoding = 0;
    this.decoding = false;
    this.next = null; // the latest picture that came while another one was decoded
    this.closed = false;
  }

  send(canvas, stamp) {
    const socket = this.control.socket;
    if (!this.control.isOpen || this.encoding >= ENCODING || socket.bufferedAmount > UNSENT) return;
    const time = performance.now();
    this.encoding++;
    canvas.toBlob(
      async (blob) => {
        this.encoding--;
        if (!blob || this.closed) return;
        const head = new DataView(new ArrayBuffer(HEADER));
        head.setUint32(0, VIDEO, true);
        head.setUint32(4, stamp, true);
        head.setFloat64(8, time, true);
        const jpeg = await blob.arrayBuffer();
        if (!this.closed && socket.readyState === WebSocket.OPEN) socket.send(new Blob([head.buffer, jpeg]));
      },
      "image/jpeg",
      QUALITY,
    );
  }

  async picture(data) {
    if (this.decoding) {
      this.next = data;
      return;
    }
    this.decoding = true;
    try {
      const bitmap = await createImageBitmap(new Blob([new Uint8Array(data, HEADER)], { type: "image/jpeg" }));
      if (!this.closed) this.output.show(bitmap, bitmap.width, bitmap.height, performance.now());
      bitmap.close();
    } catch {
      // one broken picture; the next one may be whole
    }
    this.decoding = false;
    const next = this.next;
    this.next = null;
    if (next && !this.closed) this.picture(next);
  }

  close() {
    this.closed = true;
  }
}
