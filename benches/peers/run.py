#!/usr/bin/env python3
"""Runs this server and others side by side and prints a table of medians. README.md says what it needs.

run.py fan-out   1,000 dashboards, 50 messages a second        [--clients 1000] [--seconds 10] [--rounds 3] [SERVER...]
run.py ward      64 beds of 5 vitals at 1 Hz, 200 dashboards   the same options
run.py slow      5 that never read, one at half the stream's speed, 40 s   [--warm 1] [SERVER...]
"""

import argparse
import csv
import json
import math
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PEERS = pathlib.Path(os.environ.get("PEERS_BIN", HERE / "target/release"))
OURS = pathlib.Path(os.environ.get("VITALBRIDGE_BIN", ROOT / "target/release/vitalbridge"))
PYTHON = os.environ.get("PEERS_PYTHON", str(HERE / "servers/venv/bin/python"))
# Limits that the run has to raise, as lines of [server]; what it signs in with is one user at one address.
SERVER_LIMITS = os.environ.get("VITALBRIDGE_LIMITS", "")
RATE = 50


def monitor(patient, rows, columns, step):
    """The recording of one bed as CSV: values that move a little and alarm nobody."""
    yield ["t_s"] + columns
    if columns == ["SpO2"]:
        # A bed that alarms after 15 s below its limit, and is well again, over and over.
        yield from ([second, 80 if second % 36 >= 12 else 97] for second in range(rows))
        return
    base = {"HR": 72, "PULSE": 72, "RESP": 15, "SpO2": 97, "ABPSys": 120, "ABPDias": 78, "ABPMean": 92}
    phase = (patient % 64) / 64
    for row in range(rows):
        wave = math.sin((row + patient) / 7)
        yield [f"{row * step + (phase if step == 1 else 0):.4f}"] + [round(base[c] + 2 * wave) for c in columns]


class Ours:
    """The daemon as it is installed: recordings through the pipeline, the alert rules and the store."""

    path, protocol, port = "/ws", "ws", 9400

    def __init__(self, load):
        self.load = load

    def start(self, cores):
        self.dir = tempfile.TemporaryDirectory(prefix="vitalbridge-bench-")
        folder = pathlib.Path(self.dir.name)
        ward = self.load == "ward"
        columns = ["HR", "PULSE", "RESP", "SpO2", "ABPSys", "ABPDias", "ABPMean"] if ward else ["HR"]
        beds, rows, step = (64, 300, 1) if ward else (1, 50 * 300, 1 / RATE)
        beds += self.load == "slow"
        text = [f'[server]\nlisten = "127.0.0.1:{self.port}"', SERVER_LIMITS, f'[store]\ndir = "{folder}/state"\n[alerts]\nannunciators = "none"']
        for bed in range(beds):
            with open(folder / f"{bed}.csv", "w", newline="") as file:
                alarms = self.load == "slow" and bed == 1
                csv.writer(file).writerows(monitor(bed, rows, ["SpO2"] if alarms else columns, step))
            text.append(f'[[patient]]\nid = "P-{bed}"\nname = "Bed {bed}"\nward = "a"')
            text.append(f'[[source]]\nid = "bed-{bed}"\nkind = "replay"\npatient = "P-{bed}"\nfile = "{bed}.csv"\nspeed = 1.0\nmode = "test"')
        config = folder / "bench.toml"
        config.write_text("\n".join(text) + "\n")
        (folder / "state").mkdir()
        daemon = subprocess.Popen(pinned(cores, [OURS, "run", "--config", config]), stdout=subprocess.DEVNULL, stderr=open(folder / "log", "w"))
        wait_for_port(self.port)
        token = subprocess.run([OURS, "token", "issue", "--config", config, "--role", "nurse"], capture_output=True, text=True, check=True)
        token = token.stdout.strip().splitlines()[-1]
        self.hello = [json.dumps({"type": "authenticate", "token": token})]
        channels = ["patient/+/+", "alerts/+"]
        self.hello.append(json.dumps({"type": "subscribe", "channels": channels, "delivery": "WISH"}))
        return [daemon]


class Peer:
    hello = []

    def __init__(self, load, command, port, path="/", protocol="ws", publisher=None):
        self.command, self.port, self.path, self.protocol, self.publisher = command, port, path, protocol, publisher
        self.rhythm = "ward:64" if load == "ward" else str(RATE)

    def start(self, cores):
        fill = lambda words: [str(word).replace("RHYTHM", self.rhythm) for word in words]
        started = [subprocess.Popen(pinned(cores, fill(self.command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)]
        wait_for_port(self.port)
        if self.publisher:
            started.append(subprocess.Popen(fill(self.publisher)))
        return started


def servers(load):
    files = HERE / "servers"
    return {
        "bare": Peer(load, [PEERS / "bare", "127.0.0.1:9401", "RHYTHM"], 9401),
        "ws": Peer(load, ["node", files / "ws.js", 9402, "RHYTHM"], 9402),
        "socket.io": Peer(load, ["node", files / "socketio.js", 9403, "RHYTHM"], 9403, protocol="socketio"),
        "fastapi": Peer(load, [PYTHON, files / "fastapi_ws.py", 9404, "RHYTHM"], 9404, path="/ws"),
        "flask-socketio": Peer(load, [PYTHON, files / "flask_sio.py", 9405, "RHYTHM"], 9405, protocol="socketio"),
        "mosquitto": Peer(load, ["mosquitto", "-c", files / "mosquitto.conf"], 9410, protocol="mqtt",
                          publisher=[PEERS / "mqtt_publisher", "127.0.0.1:9411", "vitals", "RHYTHM"]),
        "vitalbridge": Ours(load),
    }


def pinned(core, command):
    """Server and load client have a core each, if the machine has two."""
    command = [str(word) for word in command]
    return ["taskset", "-c", str(core)] + command if (os.cpu_count() or 1) > 1 else command


def wait_for_port(port):
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nothing listens on {port}")


def measure(server, clients, seconds, more=(), warm=1):
    started = server.start(0)
    try:
        time.sleep(warm)
        command = [PEERS / "load", "--address", f"127.0.0.1:{server.port}", "--path", server.path, "--protocol", server.protocol,
                   "--clients", clients, "--seconds", seconds, "--pid", started[0].pid, *more]
        for text in server.hello:
            command += ["--hello", text]
        done = subprocess.run(pinned(1, command), capture_output=True, text=True, timeout=seconds + 90)
        if done.stderr:
            print(done.stderr.strip(), file=sys.stderr)
        return json.loads(done.stdout)
    finally:
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
        for process in started:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def side_by_side(load, arguments):
    """In turns, so that what else the machine does meets all alike; medians count."""
    results = {}
    chosen = {name: server for name, server in servers(load).items() if name in arguments.servers or not arguments.servers}
    for turn in range(arguments.rounds):
        for name, server in chosen.items():
            # Ours keeps recent events, so it gets the same time with few clients; the others keep nothing.
            few = measure(server, 10, arguments.seconds if name == "vitalbridge" else 2)
            result = measure(server, arguments.clients, arguments.seconds)
            # What grows with time and not with connections is in both.
            result["rss_connection_kib"] = (result["rss_kib"] - few["rss_kib"]) / (arguments.clients - 10)
            results.setdefault(name, []).append(result)
            print(f"{turn + 1} {name}: {json.dumps(result)}", file=sys.stderr, flush=True)
    median = lambda name, member: statistics.median(result[member] for result in results[name])
    least = "bare" if "bare" in results else next(iter(results))
    print(f"\n{load}: {arguments.clients} dashboards, {arguments.seconds} s, medians of {arguments.rounds} rounds\n")
    print("| server | messages/s | bytes | lost | p50 ms | p99 ms | CPU us a message | of bare | KiB a connection |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in results:
        row = [median(name, m) for m in ("published_a_s", "bytes", "lost", "p50_ms", "p99_ms", "cpu_us")]
        row += [row[5] / median(least, "cpu_us"), median(name, "rss_connection_kib")]
        print("| " + name + " | " + " | ".join(f"{value:.{digits}f}" for value, digits in zip(row, (0, 0, 0, 1, 1, 2, 2, 1))) + " |")


def slow(arguments):
    print("| server | healthy p50 / p99 ms alone | beside the others | lost | slow display, oldest / last ms | alerts, fewest, slow | RSS at 0 / 40 s KiB |")
    print("|---|---|---|---|---|---|---|")
    for name, server in servers("slow").items():
        if arguments.servers and name not in arguments.servers:
            continue
        alone = measure(server, 10, 10)
        speed = alone["bytes"] * RATE / 2
        beside = measure(server, 10, 40, ["--stalled", 5, "--slow", f"{speed:.0f}"], arguments.warm)
        print(f"{name}: {json.dumps(alone)}\n{name}: {json.dumps(beside)}", file=sys.stderr)
        print(f"| {name} | {alone['p50_ms']:.1f} / {alone['p99_ms']:.1f} | {beside['p50_ms']:.1f} / {beside['p99_ms']:.1f} | {beside['lost']} | "
              f"{beside['slow_max_ms']:.0f} / {beside['slow_last_ms']:.0f} | {beside['alerts']}, {beside['alerts_fewest']}, {beside['alerts_slow']} | {beside['rss_before_kib']} / {beside['rss_kib']} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("load", choices=["fan-out", "ward", "slow"])
    parser.add_argument("--clients", type=int)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm", type=float, default=1, help="seconds before `slow` begins: ours keeps its recent events, and grows until it has all")
    parser.add_argument("servers", nargs="*")
    arguments = parser.parse_intermixed_args()
    arguments.clients = arguments.clients or {"fan-out": 1000, "ward": 200}.get(arguments.load, 10)
    slow(arguments) if arguments.load == "slow" else side_by_side(arguments.load, arguments)


main()
