// Sound that goes with the pictures: a microphone beside a camera or a screen, or a clip's own. It comes back as late
// as the edited picture; until then nothing of it is heard.

const START = 5000; // ms for sound to begin

export class Sound {
  constructor() {
    this.track = null; // what is sent
    this.audible = false; // what comes back
    this.onchange = () => {};
    this.context = null;
    this.clips = null; // the clip whose sound is wanted
  }

  // Muted at first: who speaks hears their own voice late, and the microphone would hear it again.
  async microphone() {
    if (!navigator.mediaDevices) throw new Error("this browser gives microphones to https and localhost only");
    const media = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: true } });
    const [track] = media.getAudioTracks();
    if (this.clips) return track.stop(); // a clip was chosen meanwhile
    track.onended = () => this.track === track && this.stop();
    this.use(track, false);
  }

  // Error if it must stay silent: the page was not touched yet, or there is no loudspeaker.
  async clip(video) {
    this.stop();
    this.clips = video;
    this.context ??= new AudioContext();
    await Promise.race([this.context.resume(), new Promise((done) => setTimeout(done, START))]);
    if (this.clips !== video) return; // another source was chosen meanwhile
    if (this.context.state !== "running") throw new Error("the clip is silent: the browser plays no sound here");
    const sent = this.context.createMediaStreamDestination();
    this.context.createMediaElementSource(video).connect(sent); // and to no loudspeaker
    video.muted = false;
    this.use(sent.stream.getAudioTracks()[0], true);
  }

  use(track, audible) {
    this.track?.stop();
    this.track = track;
    this.audible = audible;
    this.onchange();
  }

  stop() {
    this.clips = null;
    if (this.track) this.use(null, false);
  }

  hear(on) {
    this.audible = on;
    this.onchange();
  }
}
