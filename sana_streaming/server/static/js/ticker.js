// A worker that ticks. Timers of a page are slowed down while nobody looks at it; those of a worker are not.
let timer = null;
onmessage = ({ data: fps }) => {
  clearInterval(timer);
  timer = fps ? setInterval(() => postMessage(null), 1000 / fps) : null;
};
