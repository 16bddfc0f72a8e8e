"""The message and the rhythm of the side-by-side runs, for Python."""

import time


def message(seq):
    data = {"metric": "heart_rate", "value": 72, "unit": "bpm", "device_id": "strap-07", "patient_id": "P-0007", "quality": "valid"}
    channel = "patient/P-0007/heart_rate"
    return {"type": "health_update", "data": data, "channel": channel, "seq": seq, "sent_ns": time.time_ns()}


def moments(rhythm):
    """Yields (seconds to wait, messages) for ever: `50` a second, or `ward:64` beds of five."""
    beds = int(rhythm[5:]) if rhythm.startswith("ward:") else 0
    pause, burst = (1 / beds, 5) if beds else (1 / float(rhythm), 1)
    begin, moment = time.monotonic(), 0
    while True:
        yield max(0.0, begin + moment * pause - time.monotonic()), burst
        moment += 1
