// Fan-out by the npm package `ws`, compression off: node ws.js PORT RHYTHM
const { WebSocketServer, WebSocket } = require("ws");
const { everyMoment, message } = require("./message");

const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 2048, perMessageDeflate: false });
server.on("connection", (socket) => socket.on("error", () => socket.terminate()));
everyMoment(process.argv[3], (seq) => {
  const text = JSON.stringify(message(seq));
  for (const socket of server.clients) {
    if (socket.readyState === WebSocket.OPEN) socket.send(text);
  }
});
