// The control connection: commands and receipts, and a session that is taken up again when the line was lost.

const WAITS = [500, 1000, 2000, 4000, 8000]; // ms before each new try
const SILENCE = 6000; // ms without a word after which the line is lost: figures come every second
const OPENING = 20_000; // ms, likewise, for the first word
const FINAL = new Set(["token", "invalid", "busy"]); // errors before `opened` that another try would meet again

export class Control extends EventTarget {
  constructor(token) {
    super();
    this.token = token;
    this.socket = null;
    this.id = null;
    this.wanted = null; // what `open` says, kept up to date for when it must be said again
    this.tries = 0;
    this.timer = null;
    this.number = 0;
    this.isOpen = false;
    this.queued = false;
    this.heardAt = 0; // ms
    setInterval(() => this.listen(), 1000);
    addEventListener("online", () => this.timer !== null && this.connect());
  }

  // A session is open, or on its way.
  get busy() {
    return this.socket !== null || this.timer !== null;
  }

  open(settings) {
    this.wanted = settings;
    this.tries = 0;
    this.connect();
  }

  connect() {
    clearTimeout(this.timer);
    this.timer = null;
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}/api/session`);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.isOpen = this.queued = false;
    this.heardAt = performance.now();
    this.tell("connecting");
    socket.onopen = () =>
      socket.send(JSON.stringify({ type: "open", ...this.wanted, token: this.token, resume: this.id }));
    socket.onmessage = ({ data }) => {
      if (socket !== this.socket) return;
      this.heardAt = performance.now();
      if (typeof data === "string") this.heard(JSON.parse(data));
      else this.tell("picture", data);
    };
    socket.onclose = () => socket === this.socket && this.lost();
  }

  // A network that is gone says nothing of it.
  listen() {
    const { socket } = this;
    if (!socket || this.queued || performance.now() - this.heardAt < (this.isOpen ? SILENCE : OPENING)) return;
    this.lost();
    socket.close();
  }

  heard(message) {
    this.queued = message.type === "queued";
    if (message.type === "opened") {
      this.id = message.id;
      this.isOpen = true;
      this.tries = 0;
    } else if (message.type === "closed") {
      this.end();
    } else if (message.type === "error" && !this.isOpen) {
      if (message.code === "unknown_session") {
        this.id = null; // kept no longer: a new one with the same prompt and settings
        return;
      }
      if (FINAL.has(message.code)) this.end();
    }
    this.tell(message.type, message);
  }

  lost() {
    const was = this.isOpen;
    this.socket = null;
    this.isOpen = false;
    const wait = WAITS[Math.min(this.tries++, WAITS.length - 1)] * (0.8 + 0.4 * Math.random());
    this.timer = setTimeout(() => this.connect(), wait);
    this.tell("lost", { was, wait });
  }

  // No more tries.
  end() {
    clearTimeout(this.timer);
    const socket = this.socket;
    this.timer = this.socket = this.id = null;
    this.isOpen = false;
    socket?.close();
  }

  // The command's number, or null if there is no line now.
  send(type, fields = {}) {
    if (!this.isOpen || this.socket.readyState !== WebSocket.OPEN) return null;
    const n = ++this.number;
    this.socket.send(JSON.stringify({ type, n, ...fields }));
    return n;
  }

  tell(type, detail = null) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
