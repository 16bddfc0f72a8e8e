// The message and the rhythm of the side-by-side runs, for Node.
function message(seq) {
  const data = { metric: "heart_rate", value: 72, unit: "bpm", device_id: "strap-07", patient_id: "P-0007", quality: "valid" };
  const sent_ns = Math.round((performance.timeOrigin + performance.now()) * 1e6);
  return { type: "health_update", data, channel: "patient/P-0007/heart_rate", seq, sent_ns };
}

// `50` messages a second, or `ward:64`: so many beds, each five at its own moment of the second.
function everyMoment(rhythm, send) {
  const beds = rhythm.startsWith("ward:") ? Number(rhythm.slice(5)) : 0;
  const [pause, burst] = beds ? [1000 / beds, 5] : [1000 / Number(rhythm), 1];
  const begin = performance.now();
  let moments = 0;
  let seq = 0;
  const turn = () => {
    for (; performance.now() - begin >= moments * pause; moments++) {
      for (let i = 0; i < burst; i++) send(++seq);
    }
    setTimeout(turn, Math.max(0, begin + moments * pause - performance.now()));
  };
  turn();
}

module.exports = { everyMoment, message };
