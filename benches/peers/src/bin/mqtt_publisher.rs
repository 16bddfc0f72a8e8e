//! Publishes the message at QoS 0 over MQTT 3.1.1, for brokers that speak WebSocket to their subscribers.
//!
//! mqtt_publisher ADDRESS TOPIC RHYTHM

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use anyhow::Context as _;
use vitalbridge_peers::{Rhythm, message};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut stream = TcpStream::connect(arguments.next().context("an address")?)?;
    let topic = arguments.next().context("a topic")?;
    let (pause, burst) = Rhythm::read(&arguments.next().context("a rhythm")?)?.step();
    stream.set_nodelay(true)?;
    // CONNECT, clean session, no keep-alive; CONNACK has four bytes.
    stream.write_all(&packet(0x10, &[b"\x00\x04MQTT\x04\x02\x00\x00", &named("bench")[..]].concat()))?;
    stream.read_exact(&mut [0; 4])?;
    let begin = Instant::now();
    let mut seq = 0;
    for moment in 0_u32.. {
        std::thread::sleep((pause * moment).saturating_sub(begin.elapsed()));
        for _ in 0..burst {
            seq += 1;
            stream.write_all(&packet(0x30, &[&named(&topic), message(seq).as_bytes()].concat()))?;
        }
    }
    Ok(())
}

/// Text with its length before it.
fn named(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), text.as_bytes()].concat()
}

/// A packet: kind, length in groups of seven bits, body.
fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    let mut left = body.len();
    loop {
        let low = u8::try_from(left % 128).unwrap_or(0);
        left /= 128;
        bytes.push(if left > 0 { low | 0x80 } else { low });
        if left == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}
