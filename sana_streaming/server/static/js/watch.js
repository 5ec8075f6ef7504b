// The edited picture of a session and nothing else, by WHEP: for viewers, and for programs that show web pages.
// #watch=NAME says which session, &token=TOKEN lets in, &sound turns the sound on where the browser allows it, &clean
// leaves out controls and words.

const PAUSES = [1, 2, 4, 8]; // seconds before another try
const WAIT = 2000; // ms for candidates to be found

const asked = new URLSearchParams(location.hash.slice(1));
const picture = document.querySelector("#picture");
const said = document.querySelector("#said");
const token = asked.get("token");
const authorization = token ? { Authorization: `Bearer ${token}` } : {};

let tries = 0;
let leave = () => {};
addEventListener("pagehide", () => leave());

async function watch() {
  const { iceServers } = await (await checked(await fetch("api/ice", { headers: authorization }))).json();
  const pc = new RTCPeerConnection({ iceServers, bundlePolicy: "max-bundle" });
  try {
    const stream = new MediaStream();
    pc.ontrack = ({ track }) => stream.addTrack(track);
    for (const kind of ["video", "audio"]) pc.addTransceiver(kind, { direction: "recvonly" });
    await pc.setLocalDescription();
    await gathered(pc);
    const answer = await checked(
      await fetch(`whep/${encodeURIComponent(asked.get("watch"))}`, {
        method: "POST",
        headers: { "Content-Type": "application/sdp", ...authorization },
        body: pc.localDescription.sdp,
      }),
    );
    const place = new URL(answer.headers.get("Location"), answer.url);
    leave = () => fetch(place, { method: "DELETE", headers: authorization, keepalive: true }).catch(() => {});
    await pc.setRemoteDescription({ type: "answer", sdp: await answer.text() });
    picture.srcObject = stream;
    picture.play().catch(() => ((picture.muted = true), picture.play())); // some let nothing be heard unasked
    await ended(pc);
  } finally {
    pc.close();
  }
}

async function checked(answer) {
  if (answer.ok) return answer;
  const error = new Error((await answer.text()).trim());
  error.final = answer.status === 401;
  throw error;
}

function gathered(pc) {
  return new Promise((done) => {
    setTimeout(done, WAIT);
    pc.onicegatheringstatechange = () => pc.iceGatheringState === "complete" && done();
    pc.onicegatheringstatechange();
  });
}

function ended(pc) {
  return new Promise((_, failed) => {
    pc.onconnectionstatechange = () => {
      if (pc.connectionState === "connected") [said.textContent, tries] = ["", 0];
      if (["failed", "closed"].includes(pc.connectionState)) failed(new Error("the connection was lost"));
      if (pc.connectionState === "disconnected") said.textContent = "the connection is disturbed";
    };
  });
}

picture.controls = !asked.has("clean");
said.hidden = asked.has("clean");
picture.muted = !asked.has("sound");
if (!asked.get("watch")) said.textContent = "expected #watch=NAME in the address";
else
  for (;;) {
    try {
      await watch();
    } catch (error) {
      said.textContent = error.message;
      if (error.final) break;
    }
    await new Promise((done) => setTimeout(done, 1000 * PAUSES[Math.min(tries++, PAUSES.length - 1)]));
  }
