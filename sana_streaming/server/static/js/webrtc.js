// Pictures over WebRTC, with offer, answer and candidates over the control connection.

const PATIENCE = 5000; // ms for a way to be found
const STILL = 3; // looks, a second apart, at which nothing had come
const LARGEST_BITRATE = 8_000_000;

export class WebRtc {
  name = "WebRTC";

  // sound: its track is sent if it has one now, and then what comes back is played. onfailed: there is no way, or no
  // longer.
  constructor(control, output, canvas, sound, iceServers, { onchange, onfailed }) {
    this.control = control;
    this.output = output;
    this.sound = sound;
    this.stream = canvas.captureStream(0);
    [this.track] = this.stream.getVideoTracks();
    this.track.contentHint = "detail";
    this.received = new MediaStream();
    this.video = document.createElement("video");
    this.video.playsInline = this.video.autoplay = true;
    this.video.muted = !sound.audible;
    this.video.srcObject = this.received;
    this.closed = false;
    this.connected = false; // it was, at least once
    this.waiting = []; // candidates that came before the answer
    this.fail = () => !this.closed && (this.close(), onfailed(this));
    this.timer = setTimeout(this.fail, PATIENCE);
    this.pc = new RTCPeerConnection({ iceServers, bundlePolicy: "max-bundle" });
    this.pc.ontrack = ({ track }) => {
      this.received.addTrack(track);
      this.play();
      if (track.kind === "video") this.watch();
    };
    this.pc.onicecandidate = ({ candidate }) =>
      this.control.send("candidate", {
        candidate: candidate?.candidate || null,
        sdpMid: candidate?.sdpMid ?? null,
        sdpMLineIndex: candidate?.sdpMLineIndex ?? null,
      });
    this.pc.onconnectionstatechange = () => {
      const { connectionState } = this.pc;
      if (connectionState === "connected" && !this.connected) {
        this.connected = true;
        clearTimeout(this.timer);
        this.timer = setInterval(() => this.look().catch(() => {}), 1000);
      }
      if (connectionState === "failed") this.fail();
      onchange();
    };
    this.bytes = this.still = 0; // of the picture; looks since more of it came
    this.start().catch(this.fail);
  }

  get moving() {
    return this.pc.connectionState === "connected";
  }

  async start() {
    const { sender } = this.pc.addTransceiver(this.track, { direction: "sendrecv", streams: [this.stream] });
    if (this.sound.track) this.voice = this.pc.addTransceiver(this.sound.track, { streams: [this.stream] }).sender;
    await this.pc.setLocalDescription();
    this.control.send("offer", { sdp: this.pc.localDescription.sdp });
    this.sender = sender;
  }

  async answer({ sdp }) {
    try {
      await this.pc.setRemoteDescription({ type: "answer", sdp });
      for (const candidate of this.waiting.splice(0)) await this.pc.addIceCandidate(candidate);
      const parameters = this.sender.getParameters();
      parameters.degradationPreference = "maintain-resolution";
      if (parameters.encodings?.length) parameters.encodings[0].maxBitrate = LARGEST_BITRATE;
      await this.sender.setParameters(parameters);
    } catch {
      if (!this.pc.remoteDescription) this.fail();
    }
  }

  candidate({ candidate, sdpMid, sdpMLineIndex }) {
    const heard = candidate ? { candidate, sdpMid, sdpMLineIndex } : undefined;
    if (this.pc.remoteDescription) this.pc.addIceCandidate(heard).catch(() => {});
    else this.waiting.push(heard);
  }

  // A frame of the source is in the canvas.
  send() {
    (this.track.requestFrame ? this.track : this.stream).requestFrame();
    if (document.hidden) this.draw(performance.now()); // nothing is called for frames of a page that is not seen
  }

  // Once frames come they come at a steady rate, if only as repetitions. When none comes the way is lost, long before
  // the browser says so.
  async look() {
    const found = [...(await this.pc.getStats()).values()];
    const bytes = found.find(({ type, kind }) => type === "inbound-rtp" && kind === "video")?.bytesReceived ?? 0;
    this.still = bytes && bytes === this.bytes ? this.still + 1 : 0;
    this.bytes = bytes;
    if (this.still >= STILL) this.fail();
  }

  // Where the browser lets nothing be heard, at least the picture is seen.
  async play() {
    try {
      await this.video.play();
    } catch (error) {
      if (error.name !== "NotAllowedError") return;
      this.video.muted = true;
      this.video.play().catch(() => {});
    }
  }

  // What is sent or heard of the sound has changed.
  sounds() {
    this.voice?.replaceTrack(this.sound.track).catch(() => {});
    this.video.muted = !this.sound.audible;
  }

  watch() {
    if (this.closed) return;
    if (!this.video.requestVideoFrameCallback) {
      requestAnimationFrame((now) => (this.draw(now), this.watch()));
      return;
    }
    this.video.requestVideoFrameCallback((now, { expectedDisplayTime }) => {
      this.draw(Math.max(now, expectedDisplayTime));
      this.watch();
    });
  }

  draw(now) {
    const { videoWidth, videoHeight } = this.video;
    if (!this.closed && videoWidth) this.output.show(this.video, videoWidth, videoHeight, now);
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer); // or interval
    this.pc.close();
    this.track.stop();
    this.video.srcObject = null;
  }
}
