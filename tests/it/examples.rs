//! The clients in `examples/` against a real bridge, through a way that is cut again and again.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::bridge::{Bridge, START_LIMIT, now, token};

/// So often the way is cut under each client.
const CUTS: usize = 3;

/// A way to the bridge that a test can cut.
struct Way {
    address: String,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Way {
    fn to(bridge: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let open: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let (target, list) = (bridge.to_owned(), Arc::clone(&open));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(&target) else { continue };
                list.lock().unwrap().extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
                for (from, to) in [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)] {
                    std::thread::spawn(move || carry(from, to));
                }
            }
        });
        Self { address, open }
    }

    /// Ends every connection that goes this way.
    fn cut(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            // One that has ended already cannot be ended again.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// A running example, and the lines that it has printed.
struct Watcher {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Watcher {
    fn start(mut command: Command, token: &str) -> Self {
        command.env("VITALBRIDGE_TOKEN", token).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let list = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                list.lock().unwrap().push(line);
            }
        });
        Self { child, lines }
    }

    fn numbers(&self) -> Vec<u64> {
        let number = |line: &String| line.split(' ').next().unwrap().parse().unwrap();
        self.lines.lock().unwrap().iter().map(number).collect()
    }

    /// Waits until it has printed an event after this one.
    fn until_after(&self, seq: u64) {
        let deadline = now() + START_LIMIT;
        while self.numbers().last().is_none_or(|last| *last <= seq) {
            assert!(now() < deadline, "nothing after {seq}: {:?}", self.lines.lock().unwrap().last());
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The example as cargo has built it beside this test.
fn rust_example(address: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let built = test.ancestors().nth(2).unwrap().join("examples/watch");
    let mut command = Command::new(built);
    command.arg(address);
    command
}

fn python_example(address: &str) -> Command {
    let mut command = Command::new("/usr/bin/python3");
    command.args([concat!(env!("CARGO_MANIFEST_DIR"), "/examples/watch.py"), &format!("ws://{address}/ws")]);
    command
}

#[test]
fn the_examples_print_every_event_once_although_their_connection_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let bridge = Bridge::start(&["demo", "--listen", "127.0.0.1:0", "--state-dir", dir.path().to_str().unwrap()]);
    let token = token(dir.path(), &["--role", "viewer"]);
    for example in [rust_example, python_example] {
        let way = Way::to(&bridge.address);
        let whole = Watcher::start(rust_example(&bridge.address), &token);
        let cut = Watcher::start(example(&way.address), &token);
        let mut seen = 0;
        for _ in 0..CUTS {
            whole.until_after(seen);
            cut.until_after(seen);
            seen = *whole.numbers().last().unwrap();
            way.cut();
        }
        cut.until_after(seen);
        let (whole, cut) = (whole.numbers(), cut.numbers());
        // Both were there from the later begin to the earlier end.
        let span = whole[0].max(cut[0])..=*whole.last().unwrap().min(cut.last().unwrap());
        let part = |numbers: &[u64]| numbers.iter().copied().filter(|seq| span.contains(seq)).collect::<Vec<_>>();
        let (whole, cut) = (part(&whole), part(&cut));
        assert_eq!(cut.iter().collect::<BTreeSet<_>>().len(), cut.len(), "an event was printed twice");
        let missed: Vec<&u64> = whole.iter().filter(|seq| !cut.contains(seq)).collect();
        assert!(missed.is_empty() && whole.len() > 20, "{missed:?} of {}", whole.len());
    }
}

#[test]
fn an_example_with_a_bad_token_ends_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let bridge = Bridge::start(&["demo", "--listen", "127.0.0.1:0", "--state-dir", dir.path().to_str().unwrap()]);
    for example in [rust_example, python_example] {
        let output = example(&bridge.address).env("VITALBRIDGE_TOKEN", "wrong").output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains("4001"), "{errors}");
    }
}
