// Fan-out by Socket.IO: node socketio.js PORT RHYTHM
const http = require("http").createServer();
const { Server } = require("socket.io");
const { everyMoment, message } = require("./message");

const io = new Server(http);
http.listen({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 2048 });
everyMoment(process.argv[3], (seq) => io.emit("health_update", message(seq)));
