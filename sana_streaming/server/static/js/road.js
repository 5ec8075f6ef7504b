// The way that pictures and sound travel now: WebRTC, or the WebSocket where that does not get through.

import { Jpeg } from "./jpeg.js";
import { WebRtc } from "./webrtc.js";

export class Road {
  // always: the WebSocket, whatever WebRTC could do. authorized: options of `fetch`.
  constructor(control, output, source, sound, { always, authorized }) {
    Object.assign(this, { control, output, source, sound, always, authorized });
    this.transport = null;
    this.blocked = always; // no WebRTC
    this.worked = false; // WebRTC did, on this page
    this.turn = 0;
    this.onchange = () => {};
    this.onwarning = () => {};
    sound.onchange = () => this.sounds();
    addEventListener("online", () => this.forgive() && control.isOpen && this.open());
  }

  get text() {
    const { transport } = this;
    return transport ? `${transport.name}${transport.moving ? "" : " connecting"}` : "";
  }

  // Whether sound can travel, as far as is known.
  get carriesSound() {
    return !this.blocked;
  }

  async open() {
    this.close();
    const { turn } = this;
    let servers = [];
    if (!this.blocked) {
      try {
        servers = (await (await fetch("api/ice", this.authorized)).json()).iceServers ?? [];
      } catch {
        // peers find each other without help, or not at all
      }
    }
    if (!this.control.isOpen || turn !== this.turn) return;
    this.transport = this.blocked
      ? new Jpeg(this.control, this.output)
      : new WebRtc(this.control, this.output, this.source.canvas, this.sound, servers, {
          onchange: () => this.onchange(),
          onfailed: (transport) => this.failed(transport),
        });
    if (this.blocked && this.sound.track) this.onwarning("there is no sound over the WebSocket");
    this.onchange();
  }

  // A way that was found and lost is looked for once more: the network may have changed.
  failed({ connected }) {
    if (!connected) {
      this.blocked = true;
      this.onwarning("WebRTC found no way; pictures travel over the WebSocket");
    }
    this.open();
  }

  sounds() {
    const { transport, sound } = this;
    if (transport?.sounds) {
      if (sound.track && !transport.voice) this.open(); // it was made without sound
      else transport.sounds();
    } else if (transport && sound.track) this.onwarning("there is no sound over the WebSocket");
    this.onchange();
  }

  close() {
    this.turn++;
    this.worked ||= Boolean(this.transport?.connected);
    this.transport?.close();
    this.transport = null;
  }

  // The control connection is made anew: where WebRTC worked once it may work again.
  lost() {
    this.close();
    if (this.worked) this.forgive();
  }

  forgive() {
    const was = this.blocked;
    this.blocked = this.always;
    return was !== this.blocked;
  }
}
