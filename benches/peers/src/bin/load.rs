//! Many dashboards on one thread: counts what each receives, how old it is on arrival, what is missing, and what the
//! server spends for it. Prints one line of JSON.
//!
//! load --address HOST:PORT --path PATH --clients N --seconds S --pid PID [--protocol ws|socketio|mqtt] [--hello TEXT]...
//!      [--stalled N] [--slow BYTES_A_SECOND]
//!
//! "WISH" in a hello becomes "all", or "latest" for the stalled and the slow.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use vitalbridge_peers::now_ns;

/// After the last client has connected, before anything is counted.
const SETTLE: Duration = Duration::from_secs(3);

/// Receive buffer of a client that does not read, or not enough: what the kernel keeps for it.
const SMALL_BUFFER: u32 = 4096;

/// A slow client looks for bytes this often.
const SLOW_STEP: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Protocol {
    WebSocket,
    SocketIo,
    Mqtt,
}

#[derive(Debug)]
struct Options {
    address: String,
    path: String,
    protocol: Protocol,
    hello: Vec<String>,
    clients: usize,
    stalled: usize,
    slow: Option<f64>,
    seconds: f64,
    pid: u32,
}

impl Options {
    fn read() -> anyhow::Result<Self> {
        let mut options = Self {
            address: String::new(),
            path: "/".to_owned(),
            protocol: Protocol::WebSocket,
            hello: Vec::new(),
            clients: 10,
            stalled: 0,
            slow: None,
            seconds: 10.0,
            pid: 0,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next().with_context(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--address" => options.address = value,
                "--path" => options.path = value,
                "--hello" => options.hello.push(value),
                "--clients" => options.clients = value.parse()?,
                "--stalled" => options.stalled = value.parse()?,
                "--slow" => options.slow = Some(value.parse()?),
                "--seconds" => options.seconds = value.parse()?,
                "--pid" => options.pid = value.parse()?,
                "--protocol" => {
                    options.protocol = match value.as_str() {
                        "ws" => Protocol::WebSocket,
                        "socketio" => Protocol::SocketIo,
                        "mqtt" => Protocol::Mqtt,
                        _ => bail!("no protocol {value}"),
                    }
                }
                _ => bail!("no option {name}"),
            }
        }
        Ok(options)
    }
}

/// What one client received while it was counted.
#[derive(Debug, Default, Clone)]
struct Received {
    first: u64,
    last: u64,
    count: u64,
    alerts: BTreeSet<u64>,
}

#[derive(Debug, Default)]
struct Tally {
    counting: bool,
    connected: usize,
    ended: usize,
    ages_us: Vec<u32>,
    slow_ages_us: Vec<u32>,
    bytes: u64,
    /// Numbers that somebody received.
    seen: BTreeSet<u64>,
    clients: Vec<Received>,
}

impl Tally {
    fn take(&mut self, id: usize, is_slow: bool, text: &[u8]) {
        let Some(seq) = number_after(text, b"\"seq\":") else { return };
        if find(text, b"\"type\":\"alert\"").is_some() && self.counting {
            self.clients[id].alerts.insert(seq);
            return;
        }
        let Some(age) = age_us(text) else { return };
        if is_slow {
            self.slow_ages_us.push(age);
        }
        if !self.counting {
            return;
        }
        if !is_slow {
            self.ages_us.push(age);
            self.bytes += text.len() as u64;
            if self.seen.last().is_none_or(|last| *last < seq) {
                self.seen.insert(seq);
            }
        }
        let received = &mut self.clients[id];
        if received.count == 0 {
            received.first = seq;
        }
        received.last = received.last.max(seq);
        received.count += 1;
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    // The first letter is a quotation mark; most of the text is not.
    let mut from = 0;
    while let Some(at) = text[from..].iter().position(|byte| *byte == wanted[0]) {
        if text[from + at..].starts_with(wanted) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

fn number_after(text: &[u8], name: &[u8]) -> Option<u64> {
    let digits = &text[find(text, name)? + name.len()..];
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

/// `sent_ns`, or the time of day of `received` with its milliseconds, against now.
fn age_us(text: &[u8]) -> Option<u32> {
    const DAY_NS: u64 = 86_400_000_000_000;
    let now = now_ns();
    if let Some(sent) = number_after(text, b"\"sent_ns\":") {
        return u32::try_from(now.saturating_sub(sent) / 1000).ok();
    }
    let name = b"\"received\":\"";
    let time = text.get(find(text, name)? + name.len() + 11..)?.get(..12)?;
    let part = |from: usize, to: usize| std::str::from_utf8(&time[from..to]).ok()?.parse::<u64>().ok();
    let millis = ((part(0, 2)? * 60 + part(3, 5)?) * 60 + part(6, 8)?) * 1000 + part(9, 12)?;
    u32::try_from((now % DAY_NS + DAY_NS - millis * 1_000_000) % DAY_NS / 1000).ok()
}

/// CPU in nanoseconds of every thread, and resident memory in KiB.
fn cost(pid: u32) -> anyhow::Result<(u64, u64)> {
    let mut cpu = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let schedstat = std::fs::read_to_string(task?.path().join("schedstat"))?;
        cpu += schedstat.split(' ').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    }
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    Ok((cpu, rss.context("no VmRSS")?))
}

/// A masked frame; the key is zero, which masks nothing.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match u8::try_from(payload.len()) {
        Ok(short) if short < 126 => bytes.push(0x80 | short),
        _ => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

/// Opens the WebSocket; what has come behind the header is in the buffer.
async fn open(options: &Options, has_small_buffer: bool) -> anyhow::Result<(TcpStream, Vec<u8>)> {
    let socket = TcpSocket::new_v4()?;
    if has_small_buffer {
        socket.set_recv_buffer_size(SMALL_BUFFER)?;
    }
    let mut stream = socket.connect(options.address.parse()?).await?;
    stream.set_nodelay(true)?;
    let (path, protocol) = match options.protocol {
        Protocol::WebSocket => (options.path.as_str(), ""),
        Protocol::SocketIo => ("/socket.io/?EIO=4&transport=websocket", ""),
        Protocol::Mqtt => (options.path.as_str(), "Sec-WebSocket-Protocol: mqtt\r\n"),
    };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n{protocol}\r\n",
        options.address
    );
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    loop {
        ensure!(stream.read_buf(&mut bytes).await? > 0, "closed in the handshake");
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            ensure!(bytes.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&bytes[..end]));
            bytes.drain(..end + 4);
            return Ok((stream, bytes));
        }
    }
}

/// What a client says first. One that falls behind on purpose wants the newest of each stream, the others want all.
fn hello(options: &Options, id: usize) -> Vec<u8> {
    let wish = if id < options.clients { "\"all\"" } else { "\"latest\"" };
    let said = |text: &String| frame(0x81, text.replace("\"WISH\"", wish).as_bytes());
    match options.protocol {
        Protocol::WebSocket => options.hello.iter().flat_map(said).collect(),
        Protocol::SocketIo => frame(0x81, b"40"),
        Protocol::Mqtt => {
            let name = format!("client-{id:05}");
            let length = u8::try_from(12 + name.len()).unwrap_or(0);
            let connect = [&[0x10, length][..], b"\x00\x04MQTT\x04\x02\x00\x00\x00\x0C", name.as_bytes()].concat();
            [frame(0x82, &connect), frame(0x82, b"\x82\x0B\x00\x01\x00\x06vitals\x00")].concat()
        }
    }
}

/// Takes whole frames from the front; answers pings.
fn frames(bytes: &[u8], mut each: impl FnMut(u8, &[u8])) -> usize {
    let mut at = 0;
    while let Some(&[first, second]) = bytes.get(at..at + 2) {
        let number = |from: usize, to: usize| {
            Some(bytes.get(from..to)?.iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte)))
        };
        let (length, begin) = match second & 0x7F {
            126 => (number(at + 2, at + 4), at + 4),
            127 => (number(at + 2, at + 10), at + 10),
            short => (Some(usize::from(short)), at + 2),
        };
        let Some(payload) = length.and_then(|length| bytes.get(begin..begin + length)) else { break };
        each(first & 0x0F, payload);
        at = begin + payload.len();
    }
    at
}

async fn client(options: Rc<Options>, tally: Rc<RefCell<Tally>>, id: usize) -> anyhow::Result<()> {
    let is_stalled = (options.clients..options.clients + options.stalled).contains(&id);
    let is_slow = id >= options.clients + options.stalled;
    let (mut stream, mut bytes) = open(&options, is_stalled || is_slow).await?;
    stream.write_all(&hello(&options, id)).await?;
    tally.borrow_mut().connected += 1;
    if is_stalled {
        return std::future::pending().await;
    }
    let mut last = now_ns();
    let mut budget = 0.0;
    loop {
        if is_slow {
            tokio::time::sleep(SLOW_STEP).await;
            let (now, speed) = (now_ns(), options.slow.unwrap_or(0.0));
            budget = (budget + (now - last) as f64 / 1e9 * speed).min(speed);
            last = now;
            if budget < 1.0 {
                continue;
            }
            let mut some = vec![0; budget as usize];
            match tokio::time::timeout(SLOW_STEP, stream.read(&mut some)).await {
                Ok(read) => {
                    let read = read?;
                    ensure!(read > 0, "closed");
                    budget -= read as f64;
                    bytes.extend_from_slice(&some[..read]);
                }
                Err(_) => continue,
            }
        } else {
            ensure!(stream.read_buf(&mut bytes).await? > 0, "closed");
        }
        let (mut answers, mut is_over) = (Vec::new(), false);
        let used = frames(&bytes, |opcode, payload| match opcode {
            1 if options.protocol == Protocol::SocketIo && payload == b"2" => answers.extend(frame(0x81, b"3")),
            1 | 2 => tally.borrow_mut().take(id, is_slow, payload),
            8 => is_over = true,
            9 => answers.extend(frame(0x8A, payload)),
            _ => {}
        });
        bytes.drain(..used);
        if !answers.is_empty() {
            stream.write_all(&answers).await?;
        }
        ensure!(!is_over, "closed by the server");
    }
}

fn quantile(sorted: &[u32], part: f64) -> f64 {
    let at = (sorted.len().saturating_sub(1) as f64 * part) as usize;
    sorted.get(at).copied().unwrap_or(0) as f64 / 1000.0
}

async fn run(options: Rc<Options>) -> anyhow::Result<()> {
    let all = options.clients + options.stalled + usize::from(options.slow.is_some());
    let tally = Rc::new(RefCell::new(Tally { clients: vec![Received::default(); all], ..Tally::default() }));
    for id in 0..all {
        let (options, tally) = (Rc::clone(&options), Rc::clone(&tally));
        tokio::task::spawn_local(async move {
            if let Err(error) = client(options, Rc::clone(&tally), id).await {
                let mut tally = tally.borrow_mut();
                tally.ended += 1;
                if tally.ended <= 3 {
                    eprintln!("client {id}: {error:#}");
                }
            }
        });
        // A listen queue has room for a few hundred.
        if id % 20 == 19 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let until = now_ns() + 30_000_000_000;
    while tally.borrow().connected + tally.borrow().ended < all && now_ns() < until {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(SETTLE).await;
    let (cpu_before, rss_before) = cost(options.pid)?;
    let begin = now_ns();
    tally.borrow_mut().counting = true;
    tokio::time::sleep(Duration::from_secs_f64(options.seconds)).await;
    tally.borrow_mut().counting = false;
    let seconds = (now_ns() - begin) as f64 / 1e9;
    let (cpu_after, rss) = cost(options.pid)?;
    report(&options, &mut tally.borrow_mut(), seconds, cpu_after - cpu_before, (rss_before, rss));
    Ok(())
}

fn report(options: &Options, tally: &mut Tally, seconds: f64, cpu_ns: u64, (rss_before, rss): (u64, u64)) {
    let healthy = &tally.clients[..options.clients];
    let lost: u64 = healthy
        .iter()
        .map(|it| (tally.seen.range(it.first..=it.last.max(it.first)).count() as u64).saturating_sub(it.count))
        .sum();
    let silent = healthy.iter().filter(|it| it.count == 0).count();
    let alerts: BTreeSet<u64> = tally.clients.iter().flat_map(|it| it.alerts.iter().copied()).collect();
    let fewest = healthy.iter().map(|it| it.alerts.len()).min().unwrap_or(0);
    let of_slow = tally.clients.last().filter(|_| options.slow.is_some()).map_or(0, |it| it.alerts.len());
    let slow_last = tally.slow_ages_us.last().copied().unwrap_or(0) as f64 / 1000.0;
    tally.ages_us.sort_unstable();
    tally.slow_ages_us.sort_unstable();
    let (ages, slow) = (&tally.ages_us, &tally.slow_ages_us);
    let delivered = ages.len().max(1) as f64;
    println!(
        "{{\"connected\":{},\"ended\":{},\"delivered\":{},\"published_a_s\":{:.1},\"bytes\":{:.0},\"p50_ms\":{:.2},\"p99_ms\":{:.2},\
         \"max_ms\":{:.2},\"lost\":{lost},\"silent\":{silent},\"cpu_us\":{:.3},\"cpu_s\":{:.3},\"rss_before_kib\":{rss_before},\
         \"rss_kib\":{rss},\"alerts\":{},\"alerts_fewest\":{fewest},\"alerts_slow\":{of_slow},\"slow_messages\":{},\
         \"slow_p50_ms\":{:.0},\"slow_max_ms\":{:.0},\"slow_last_ms\":{slow_last:.0}}}",
        tally.connected,
        tally.ended,
        ages.len(),
        tally.seen.len() as f64 / seconds,
        tally.bytes as f64 / delivered,
        quantile(ages, 0.5),
        quantile(ages, 0.99),
        quantile(ages, 1.0),
        cpu_ns as f64 / 1000.0 / delivered,
        cpu_ns as f64 / 1e9,
        alerts.len(),
        slow.len(),
        quantile(slow, 0.5),
        quantile(slow, 1.0),
    );
}

fn main() -> anyhow::Result<()> {
    let options = Rc::new(Options::read()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, run(options))
}
