//! RFC 6455, frame by frame, by a client that writes raw bytes: against an echo over the stream of production with its
//! limits raised, and against the router for the opening handshake. docs/conformance.md says what has run.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf};

use super::echo::{MAX_MESSAGE, echo};
use super::{HOST, Server};

/// An answer is awaited this long, also on a busy machine.
const LIMIT: Duration = Duration::from_mins(1);

const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;
const FIN: u8 = 0x80;

/// A frame of a client, masked.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    with_length(first, payload, payload.len(), 0)
}

/// The same with any length in a form of at least so many bytes.
fn with_length(first: u8, payload: &[u8], length: usize, form: usize) -> Vec<u8> {
    const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
    let mut bytes = vec![first];
    match length {
        0..=125 if form == 0 => bytes.push(FIN | u8::try_from(length).unwrap()),
        0..=65_535 if form <= 2 => {
            bytes.push(FIN | 0x7E);
            bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        _ => {
            bytes.push(FIN | 0x7F);
            bytes.extend(u64::try_from(length).unwrap().to_be_bytes());
        }
    }
    bytes.extend(KEY);
    bytes.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// Frames: first byte or opcode, and payload.
type Parts<'a> = &'a [(u8, &'a [u8])];

/// What the server sent: opcode and payload of each frame.
type Came = Vec<(u8, Vec<u8>)>;

/// One frame of a server; `None` at the end of the stream.
async fn read(stream: &mut ReadHalf<DuplexStream>) -> Option<(u8, Vec<u8>)> {
    let first = stream.read_u8().await.ok()?;
    let second = stream.read_u8().await.ok()?;
    assert!(second < 0x80, "a server does not mask");
    let length = match second {
        126 => usize::from(stream.read_u16().await.ok()?),
        127 => usize::try_from(stream.read_u64().await.ok()?).unwrap(),
        short => usize::from(short),
    };
    assert_eq!(first & 0xF0, FIN, "nothing was agreed on, and nothing is sent in parts");
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await.ok()?;
    Some((first & 0x0F, payload))
}

/// Sends the bytes in pieces of this size, says no more unless the server ends, and reads to the end.
async fn talk(bytes: &[u8], piece: usize) -> Came {
    let (ours, theirs) = tokio::io::duplex(256 * 1024);
    let (mut reader, mut writer) = tokio::io::split(ours);
    let sending = async move {
        for part in bytes.chunks(piece) {
            // A server that has seen enough closes.
            if writer.write_all(part).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        writer
    };
    let reading = async move {
        let mut came = Vec::new();
        while let Some(frame) = read(&mut reader).await {
            came.push(frame);
        }
        (came, reader)
    };
    let client = async {
        let (_writer, (came, _reader)) = tokio::join!(sending, reading);
        came
    };
    let both = async { tokio::join!(echo(theirs), client) };
    tokio::time::timeout(LIMIT, both).await.expect("the server does not end").1
}

/// What comes must be these echoes and then the close.
async fn check(what: &str, bytes: &[u8], expected: Parts<'_>, code: u16) {
    let code_bytes = code.to_be_bytes();
    for piece in [usize::MAX / 2, 1, 7] {
        if bytes.len() > 100_000 && piece != usize::MAX / 2 {
            continue;
        }
        let came = talk(bytes, piece).await;
        let (last, echoes) = came.split_last().unwrap_or_else(|| panic!("{what}: nothing came"));
        let echoes: Vec<(u8, &[u8])> = echoes.iter().map(|(opcode, payload)| (*opcode, payload.as_slice())).collect();
        assert!(echoes == expected, "{what}, pieces of {piece}: {} frames came, not {}", echoes.len(), expected.len());
        let told = if code == 1005 { &[][..] } else { &code_bytes };
        assert_eq!(last.0, CLOSE, "{what}, pieces of {piece}");
        assert_eq!(last.1.get(..2).unwrap_or(&[]), told, "{what}, pieces of {piece}");
    }
}

#[tokio::test]
async fn every_length_is_echoed_in_one_piece_and_in_many() {
    for opcode in [TEXT, BINARY] {
        for length in [0, 1, 125, 126, 127, 128, 65_535, 65_536] {
            let payload = vec![b'*'; length];
            let bytes = [frame(FIN | opcode, &payload), close(1000, b"")].concat();
            check(&format!("{opcode} of {length}"), &bytes, &[(opcode, &payload)], 1000).await;
        }
    }
    for (length, form) in [(0, 2), (125, 2), (126, 8), (65_535, 8), (usize::MAX, 8)] {
        let bytes = [frame(FIN | TEXT, b"before"), with_length(FIN | BINARY, &[], length, form)].concat();
        check(&format!("{length} in {form} bytes"), &bytes, &[(TEXT, b"before")], 1002).await;
    }
}

#[tokio::test]
async fn messages_of_up_to_16_mib_come_back_whole_and_in_thousands_of_fragments() {
    for opcode in [TEXT, BINARY] {
        let payload: Vec<u8> = (0..MAX_MESSAGE).map(|at| b'a' + u8::try_from(at % 23).unwrap()).collect();
        for (length, fragment) in [
            (1 << 16, 1 << 16),
            (1 << 20, 1 << 20),
            (MAX_MESSAGE, MAX_MESSAGE),
            (1 << 20, 64),
            (1 << 20, 1024),
            (1 << 22, 1 << 16),
            (65_536, 1300),
        ] {
            let mut bytes = Vec::new();
            for (number, part) in payload[..length].chunks(fragment).enumerate() {
                let is_last = (number + 1) * fragment >= length;
                bytes.extend(frame(if is_last { FIN } else { 0 } | if number == 0 { opcode } else { 0 }, part));
            }
            bytes.extend(close(1000, b""));
            check(&format!("{opcode}: {length} by {fragment}"), &bytes, &[(opcode, &payload[..length])], 1000).await;
        }
    }
}

#[tokio::test]
async fn pings_are_answered_in_their_order_and_pongs_are_not() {
    for payload in [&b""[..], b"Hello", &[0x00, 0xFF, 0xFE, 0xFD], &[0xFE; 125]] {
        check("a ping", &[frame(FIN | PING, payload), close(1000, b"")].concat(), &[(PONG, payload)], 1000).await;
    }
    check("a pong", &[frame(FIN | PONG, b"who?"), close(1000, b"")].concat(), &[], 1000).await;
    let texts: Vec<Vec<u8>> = (0..10).map(|number| format!("ping {number}").into_bytes()).collect();
    let mut bytes: Vec<u8> = texts.iter().flat_map(|text| frame(FIN | PING, text)).collect();
    bytes.extend(close(1000, b""));
    let pongs: Vec<(u8, &[u8])> = texts.iter().map(|text| (PONG, text.as_slice())).collect();
    check("ten pings", &bytes, &pongs, 1000).await;
    for opcode in [PING, PONG, CLOSE] {
        check("126 bytes of control", &frame(FIN | opcode, &[0x20; 126]), &[], 1002).await;
        check("a fragment of control", &frame(opcode, b""), &[], 1002).await;
    }
}

#[tokio::test]
async fn reserved_bits_and_opcodes_and_missing_masks_fail_the_connection() {
    let before = frame(FIN | TEXT, b"before");
    for bits in (0x10..=0x70).step_by(0x10) {
        for opcode in [TEXT, BINARY, CLOSE, PING, PONG] {
            let bytes = [before.clone(), frame(FIN | bits | opcode, b""), frame(FIN | PING, b"")].concat();
            check(&format!("bits {bits:x} of {opcode:x}"), &bytes, &[(TEXT, b"before")], 1002).await;
        }
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        for payload in [&b""[..], b"reserved"] {
            let bytes = [before.clone(), frame(FIN | opcode, payload), frame(FIN | PING, b"")].concat();
            check(&format!("opcode {opcode}"), &bytes, &[(TEXT, b"before")], 1002).await;
        }
    }
    check("no mask", &[before, vec![FIN | TEXT, 2, b'n', b'o']].concat(), &[(TEXT, b"before")], 1002).await;
}

#[tokio::test]
async fn fragments_are_put_together_and_out_of_place_they_fail_the_connection() {
    let (text, binary, more, last) = (TEXT, BINARY, 0, FIN);
    let ping = (FIN | PING, &b"!"[..]);
    let cases: &[(Parts<'_>, Parts<'_>, u16)] = &[
        (&[(text, b"one"), (last, b"two")], &[(TEXT, b"onetwo")], 1000),
        (&[(binary, b"one"), (more, b"-"), (last, b"two")], &[(BINARY, b"one-two")], 1000),
        (&[(text, b""), (more, b""), (last, b"")], &[(TEXT, b"")], 1000),
        (&[(text, b""), (more, b"middle"), (last, b"")], &[(TEXT, b"middle")], 1000),
        (&[(text, b"one"), ping, (last, b"two")], &[(PONG, b"!"), (TEXT, b"onetwo")], 1000),
        (&[(text, b"a"), ping, (more, b"b"), ping, (last, b"c")], &[(PONG, b"!"), (PONG, b"!"), (TEXT, b"abc")], 1000),
        (&[(last, b"alone")], &[], 1002),
        (&[(more, b"alone")], &[], 1002),
        (&[(FIN | text, b"whole"), (last, b"alone")], &[(TEXT, b"whole")], 1002),
        (&[(text, b"one"), (FIN | text, b"another")], &[], 1002),
        (&[(text, b"one"), (binary, b"another")], &[], 1002),
        (&[(text, b"a"), (last, b"b"), (last, b"c")], &[(TEXT, b"ab")], 1002),
        (&[(text, b"\xCE\xBA\xE1"), (more, b"\xBD"), (last, b"\xB9")], &[(TEXT, b"\xCE\xBA\xE1\xBD\xB9")], 1000),
    ];
    for (number, (parts, expected, code)) in cases.iter().enumerate() {
        let mut bytes: Vec<u8> = parts.iter().flat_map(|(first, payload)| frame(*first, payload)).collect();
        if *code == 1000 {
            bytes.extend(close(1000, b""));
        }
        check(&format!("case {number}"), &bytes, expected, *code).await;
    }
}

#[tokio::test]
async fn a_text_that_is_not_utf8_fails_at_its_first_wrong_byte() {
    let good = [
        "",
        "Hello",
        "κόσμε",
        "\u{80}\u{7FF}\u{800}\u{FFFF}\u{10000}\u{10FFFF}",
        "\u{D7FF}\u{E000}\u{FFFD}",
        "\u{FFFE}",
    ];
    for text in good {
        let bytes = [frame(FIN | TEXT, text.as_bytes()), close(1000, b"")].concat();
        check(text, &bytes, &[(TEXT, text.as_bytes())], 1000).await;
        let mut split: Vec<u8> =
            text.bytes().enumerate().flat_map(|(at, byte)| frame(if at == 0 { TEXT } else { 0 }, &[byte])).collect();
        split.extend(frame(if text.is_empty() { FIN | TEXT } else { FIN }, b""));
        split.extend(close(1000, b""));
        check(text, &split, &[(TEXT, text.as_bytes())], 1000).await;
    }
    let bad: &[&[u8]] = &[
        b"\x80",
        b"\xBF",
        b"\xC0\xAF",
        b"\xC1\xBF",
        b"\xE0\x80\xAF",
        b"\xE0\x9F\xBF",
        b"\xF0\x80\x80\xAF",
        b"\xF0\x8F\xBF\xBF",
        b"\xF8\x88\x80\x80\x80",
        b"\xFC\x84\x80\x80\x80\x80",
        b"\xFE",
        b"\xFF",
        b"\xED\xA0\x80",
        b"\xED\xBF\xBF",
        b"\xF4\x90\x80\x80",
        b"\xF7\xBF\xBF\xBF",
        b"\xCE\xBA\xED\xA0\x80edited",
    ];
    for text in bad {
        check(&format!("{text:x?}"), &frame(FIN | TEXT, text), &[], 1007).await;
        // Nothing but its first wrong bytes has come, and the end of neither frame nor message.
        let unfinished = with_length(TEXT, text, 5000, 0);
        check(&format!("{text:x?} of 5000 bytes"), &unfinished, &[], 1007).await;
    }
    for cut in [&b"\xCE"[..], b"\xE1\xBD", b"\xF0\x9F\x98"] {
        check("an unfinished character", &frame(FIN | TEXT, cut), &[], 1007).await;
        check("an unfinished fragment", &[frame(TEXT, cut), frame(FIN, b"a")].concat(), &[], 1007).await;
    }
}

#[tokio::test]
async fn every_close_is_answered_with_its_code_or_with_what_is_wrong_with_it() {
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        check(&format!("{code}"), &close(code, b""), &[], code).await;
        check(&format!("{code}"), &close(code, &[b'*'; 123]), &[], code).await;
    }
    check("no code", &frame(FIN | CLOSE, b""), &[], 1005).await;
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        check(&format!("{code}"), &close(code, b""), &[], 1002).await;
    }
    check("half a code", &frame(FIN | CLOSE, &[3]), &[], 1002).await;
    check("a reason of 124 bytes", &close(1000, &[b'*'; 124]), &[], 1002).await;
    check("a reason that is not UTF-8", &close(1000, b"\xCE\xBA\xED\xA0\x80"), &[], 1007).await;
    for after in [frame(FIN | TEXT, b"too late"), frame(FIN | PING, b""), close(1001, b"")] {
        let bytes = [frame(FIN | TEXT, b"before"), close(1000, b""), after].concat();
        check("after the close", &bytes, &[(TEXT, b"before")], 1000).await;
    }
    check("inside a message", &[frame(TEXT, b"one"), close(1000, b""), frame(FIN, b"two")].concat(), &[], 1000).await;
}

#[tokio::test]
async fn the_opening_handshake_is_checked() {
    let server = Server::start();
    let key = "Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==";
    let good = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", key];
    let ask = async |lines: &[&str], first: &str| {
        let mut stream = server.stream();
        let request = format!("{first}\r\nHost: {HOST}\r\n{}\r\n\r\n", lines.join("\r\n"));
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8(answer).unwrap().to_ascii_lowercase()
    };
    let answer = ask(&good, "GET /ws HTTP/1.1").await;
    // The SHA-1 of the key and the GUID of RFC 6455, 1.3, computed by another program.
    let accepted = format!("\r\nsec-websocket-accept: {}\r\n", "Bz3qJYTGdOe8gUSpLosEdiLKDrk=".to_ascii_lowercase());
    assert!(answer.starts_with("http/1.1 101 ") && answer.contains(&accepted), "{answer}");
    assert!(!answer.contains("sec-websocket-extensions") && !answer.contains("sec-websocket-protocol"), "{answer}");
    let odd = ["upgrade: WEBSOCKET", "connection: keep-alive, upgrade", "sec-websocket-version: 13", key];
    assert!(ask(&odd, "GET /ws HTTP/1.1").await.starts_with("http/1.1 101 "));
    for (missing, status) in [(0, "426"), (1, "426"), (2, "426"), (3, "426")] {
        let lines: Vec<&str> =
            good.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, line)| *line).collect();
        let answer = ask(&lines, "GET /ws HTTP/1.1").await;
        assert!(answer.starts_with(&format!("http/1.1 {status} ")), "without {}: {answer}", good[missing]);
    }
    for (place, wrong) in [
        (2, "Sec-WebSocket-Version: 8"),
        (3, "Sec-WebSocket-Key: short"),
        (3, "Sec-WebSocket-Key: ???!???!???!???!???!???!"),
    ] {
        let mut lines = good;
        lines[place] = wrong;
        let answer = ask(&lines, "GET /ws HTTP/1.1").await;
        assert!(answer.starts_with("http/1.1 4"), "{wrong}: {answer}");
        assert!(place != 2 || answer.contains("\r\nsec-websocket-version: 13\r\n"), "4.2.2: which version is spoken");
    }
    assert!(ask(&good, "POST /ws HTTP/1.1").await.starts_with("http/1.1 405 "));
}
