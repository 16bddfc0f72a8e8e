"""Fan-out by Flask-SocketIO on gevent: flask_sio.py PORT RHYTHM"""

from gevent import monkey

monkey.patch_all()

import sys

from flask import Flask
from flask_socketio import SocketIO

from message import message, moments

app = Flask(__name__)
sockets = SocketIO(app, async_mode="gevent")


def publish():
    seq = 0
    for pause, burst in moments(sys.argv[2]):
        sockets.sleep(pause)
        for _ in range(burst):
            seq += 1
            sockets.emit("health_update", message(seq))


sockets.start_background_task(publish)
sockets.run(app, host="127.0.0.1", port=int(sys.argv[1]))
