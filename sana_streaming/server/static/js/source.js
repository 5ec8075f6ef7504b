// A camera, a screen or a clip, drawn into one canvas with the stamp below, so that whatever is chosen, and however it
// changes its size, the session sees frames of one size at one rate.

import { ROWS, draw, next } from "./stamp.js";

const SIDE = 1280; // pixels of the source at most
const LARGEST_FPS = 30;

export class Source {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
    this.video = document.createElement("video");
    this.video.muted = this.video.playsInline = true;
    this.kind = null;
    this.facing = ""; // which way a camera looks
    this.fps = 24;
    this.stamp = 0;
    this.times = new Float64Array(65536); // when the frame of a stamp was drawn, ms
    this.rows = 0; // of the stripe
    this.onframe = () => {};
    this.onended = () => {};
    this.ticker = new Worker(new URL("ticker.js", import.meta.url));
    this.ticker.onmessage = () => this.tick();
  }

  get ready() {
    return this.kind !== null;
  }

  // Width, height and rate that the session is asked for.
  get shape() {
    const { videoWidth: w, videoHeight: h } = this.video;
    const scale = Math.min(1, SIDE / Math.max(w, h));
    return { width: Math.round(w * scale), height: Math.round(h * scale), fps: this.fps };
  }

  // device: its id; the one that looks at the user if none is named.
  async camera(device = null) {
    if (!navigator.mediaDevices) throw new Error("this browser gives cameras to https and localhost only");
    const which = device ? { deviceId: { exact: device } } : { facingMode: "user" };
    const video = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 }, ...which };
    if (this.kind === "camera") this.stop(); // phones open one at a time
    await this.play(await navigator.mediaDevices.getUserMedia({ video, audio: false }), "camera");
  }

  // Those to choose from, by their names, and the id of the one in use.
  async cameras() {
    const all = await navigator.mediaDevices.enumerateDevices();
    const used = this.video.srcObject?.getVideoTracks()[0]?.getSettings().deviceId;
    return { all: all.filter(({ kind }) => kind === "videoinput"), used };
  }

  async screen() {
    if (!navigator.mediaDevices?.getDisplayMedia) throw new Error("this browser cannot share a screen");
    await this.play(await navigator.mediaDevices.getDisplayMedia({ video: { frameRate: 30 }, audio: false }), "screen");
  }

  async clip(file) {
    await this.play(file, "clip");
  }

  async play(media, kind) {
    const stream = media instanceof MediaStream;
    const video = document.createElement("video");
    video.muted = video.playsInline = video.loop = true;
    if (stream) video.srcObject = media;
    else video.src = URL.createObjectURL(media);
    try {
      await video.play();
      if (!video.videoWidth) throw new Error("no picture");
    } catch (error) {
      if (stream) media.getTracks().forEach((track) => track.stop());
      throw new Error(stream ? `the picture cannot be shown: ${error.message}` : "the browser cannot play that file");
    }
    this.stop();
    this.video = video;
    this.kind = kind;
    const track = stream ? media.getVideoTracks()[0] : null;
    if (track)
      track.onended = () => {
        if (this.video !== video) return;
        this.stop();
        this.onended(kind);
      };
    this.facing = track?.getSettings().facingMode ?? "";
    this.fps = Math.max(1, Math.min(LARGEST_FPS, Math.round(track?.getSettings().frameRate || LARGEST_FPS)));
  }

  // Frames of the session's size from now on. `asked` is the height that it was opened with: the server scales the
  // stripe with the picture.
  run(width, height, asked, fps) {
    this.rows = Math.max(1, Math.round((height * ROWS) / asked));
    if (this.canvas.width !== width || this.canvas.height !== height + this.rows) {
      this.canvas.width = width;
      this.canvas.height = height + this.rows;
    }
    this.ticker.postMessage(fps);
  }

  tick() {
    const { videoWidth: w, videoHeight: h, readyState } = this.video;
    if (!this.kind || readyState < 2 || !w) return;
    const { width, height: all } = this.canvas;
    const height = all - this.rows;
    const scale = Math.max(width / w, height / h);
    const [sw, sh] = [width / scale, height / scale];
    this.context.drawImage(this.video, (w - sw) / 2, (h - sh) / 2, sw, sh, 0, 0, width, height);
    this.stamp = next(this.stamp);
    this.times[this.stamp] = performance.now();
    draw(this.context, this.stamp, height, width, this.rows);
    this.onframe(this.canvas, this.stamp);
  }

  stop() {
    this.ticker.postMessage(0);
    this.kind = null;
    this.video.srcObject?.getTracks().forEach((track) => track.stop());
    if (this.video.src) URL.revokeObjectURL(this.video.src);
    this.video.pause();
  }
}
