// Pictures over WebRTC, with offer, answer and candidates over the control connection.

const PATIENCE = 5000; // ms for a way to be found
const LARGEST_BITRATE = 8_000_000;

export class WebRtc {
  name = "WebRTC";

  // onfailed: there is no way, or no longer.
  constructor(control, output, canvas, iceServers, onfailed) {
    this.control = control;
    this.output = output;
    this.stream = canvas.captureStream(0);
    [this.track] = this.stream.getVideoTracks();
    this.track.contentHint = "detail";
    this.video = document.createElement("video");
    this.video.muted = this.video.playsInline = this.video.autoplay = true;
    this.closed = false;
    this.connected = false;
    this.waiting = []; // candidates that came before the answer
    this.fail = () => !this.closed && (this.close(), onfailed());
    this.timer = setTimeout(() => this.connected || this.fail(), PATIENCE);
    this.pc = new RTCPeerConnection({ iceServers, bundlePolicy: "max-bundle" });
    this.pc.ontrack = ({ track }) => {
      this.video.srcObject = new MediaStream([track]);
      this.video.play().catch(() => {});
      this.watch();
    };
    this.pc.onicecandidate = ({ candidate }) =>
      this.control.send("candidate", {
        candidate: candidate?.candidate || null,
        sdpMid: candidate?.sdpMid ?? null,
        sdpMLineIndex: candidate?.sdpMLineIndex ?? null,
      });
    this.pc.onconnectionstatechange = () => {
      if (this.pc.connectionState === "connected") this.connected = true;
      if (this.pc.connectionState === "failed") this.fail();
    };
    this.start().catch(this.fail);
  }

  async start() {
    const { sender } = this.pc.addTransceiver(this.track, { direction: "sendrecv", streams: [this.stream] });
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
    clearTimeout(this.timer);
    this.pc.close();
    this.track.stop();
    this.video.srcObject = null;
  }
}
