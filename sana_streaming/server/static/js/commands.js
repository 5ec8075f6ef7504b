// Commands that the server answers twice: when it has accepted them, and when they hold.

export class Commands {
  constructor(control) {
    this.control = control;
    this.waiting = new Map(); // number of a command -> what shows its receipts
    control.addEventListener("accepted", ({ detail: { n } }) => this.waiting.get(n)?.("accepted, waits for its chunk"));
    control.addEventListener("applied", ({ detail: { n, chunk, frame } }) =>
      this.done(n, `in force from chunk ${chunk}, frame ${frame}`, "applied"),
    );
    control.addEventListener("error", ({ detail: { n } }) => this.done(n, "refused", "refused"));
    control.addEventListener("lost", () => this.waiting.clear());
  }

  // show: called with what becomes of it, and with "applied" or "refused" at the end.
  ask(type, fields, show) {
    const n = this.control.send(type, fields);
    if (n !== null) this.waiting.set(n, show);
    show(n === null ? "will be sent when connected" : "sent");
  }

  done(n, text, kind) {
    this.waiting.get(n)?.(text, kind);
    this.waiting.delete(n);
  }
}
