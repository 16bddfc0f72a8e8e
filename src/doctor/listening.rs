//! The address that dashboards use: free for the daemon, or answered by it.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::doctor::processes::{self, Process};
use crate::doctor::{Area, Finding, Patient, blocking};
use crate::host;
use crate::server;

/// The daemon answers within this time.
const ANSWER: Duration = Duration::from_secs(3);

/// What happened at the address.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Facts {
    /// The daemon takes a connection, and where there is no TLS says that it is well.
    Answers,
    /// The daemon runs and does not, for this reason.
    Silent(String),
    /// It does not yet: systemd waits for it to be ready.
    Starting,
    /// No daemon runs, and one could listen.
    Free,
    Taken(Option<Process>),
    /// A port below 1024.
    Denied,
    /// No interface has the address.
    NoSuchAddress,
    Other(String),
}

pub(super) async fn check(patient: &Patient<'_>) -> Vec<Finding> {
    let Some(config) = patient.config else {
        return vec![Finding::skipped(Area::Ports, "unused", "the configuration, which names the address, has errors")];
    };
    let listen = config.server.listen;
    let facts = match patient.daemon {
        Some(_) if listen.port() == 0 => {
            return vec![Finding::skipped(Area::Ports, "any", "the daemon has taken a free port; its log says which")];
        }
        Some(_) => match ask(host::reachable(listen), config.server.tls.is_some()).await {
            Facts::Silent(_) if patient.unit.is_starting() => Facts::Starting,
            found => found,
        },
        None => try_out(listen).await,
    };
    vec![judge(&facts, listen)]
}

async fn ask(address: SocketAddr, has_tls: bool) -> Facts {
    let asking = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = [0; 12];
        if has_tls {
            // Who asks without TLS is refused, by a record of TLS or the end of the connection. A daemon that has taken its address and
            // does not work yet says nothing.
            return stream.read(&mut answer).await.map(drop).or_else(|error| match error.kind() {
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Ok(()),
                _ => Err(error),
            });
        }
        stream.read_exact(&mut answer).await?;
        match answer.strip_prefix(b"HTTP/1.1 ") {
            Some(b"200") => Ok(()),
            // Too many connections, or on its way down: it says so itself.
            Some(code) => Err(io::Error::other(format!("it answers {}", String::from_utf8_lossy(code)))),
            None => Err(io::Error::other("what answers there is no HTTP")),
        }
    };
    match tokio::time::timeout(ANSWER, asking).await {
        Ok(Ok(())) => Facts::Answers,
        Ok(Err(error)) => Facts::Silent(error.to_string()),
        Err(_) => Facts::Silent(format!("no answer within {} s", ANSWER.as_secs())),
    }
}

async fn try_out(listen: SocketAddr) -> Facts {
    // Bound as the daemon would, and let go of at once.
    let Err(error) = server::bind(listen).await else { return Facts::Free };
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let port = listen.port();
            Facts::Taken(blocking(move || processes::who_listens(Path::new("/proc"), port)).await)
        }
        io::ErrorKind::PermissionDenied => Facts::Denied,
        io::ErrorKind::AddrNotAvailable => Facts::NoSuchAddress,
        _ => Facts::Other(error.to_string()),
    }
}

fn judge(facts: &Facts, listen: SocketAddr) -> Finding {
    let error = |check, message: String, advice: &str| Finding::error(Area::Ports, check, message, advice);
    let another = "stop that program, or set another `server.listen` in the configuration";
    match facts {
        Facts::Answers => Finding::ok(Area::Ports, "answered", format!("the daemon answers at {listen}")),
        Facts::Free => Finding::ok(Area::Ports, "free", format!("no daemon runs, and {listen} is free")),
        Facts::Silent(reason) => error(
            "silent",
            format!("the daemon runs and does not answer at {listen}: {reason}"),
            "see `journalctl -u vitalbridge -n 50`: while it opens, mends or brings forward a large database it answers nobody, for minutes, \
             and must not be ended; it may have been started with another configuration; else `sudo systemctl restart vitalbridge`",
        ),
        Facts::Starting => Finding::warning(
            Area::Ports,
            "starting",
            format!("the daemon does not answer at {listen} yet: it is starting"),
            "wait, and do not restart it: what it does to a large database takes minutes and would begin again; `journalctl -u vitalbridge \
             -f` shows how it gets on",
        ),
        Facts::Taken(Some(process)) => error("taken", format!("{listen} is taken by {process}"), another),
        Facts::Taken(None) => {
            error("taken", format!("{listen} is taken by another program; as root this says by which"), another)
        }
        Facts::Denied => error(
            "denied",
            format!("{listen} may not be listened on: ports below 1024 are root's"),
            "set a port from 1024 on in `server.listen`, for example 8080; a proxy can be in front of it",
        ),
        Facts::NoSuchAddress => error(
            "no_such_address",
            format!("this machine has no address {}", listen.ip()),
            "see `ip address`; `server.listen = \"0.0.0.0:8080\"` means all of them, also those that come later",
        ),
        Facts::Other(reason) => error("unusable", reason.clone(), "correct `server.listen` of the configuration"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Place};
    use crate::doctor::Level;

    #[test]
    fn each_finding_about_the_address_says_what_to_do() {
        let listen: SocketAddr = "127.0.0.1:8080".parse().unwrap();
        let process = || Some(Process { pid: 7, name: "nginx".to_owned() });
        for (facts, check, level, words) in [
            (Facts::Answers, "answered", Level::Ok, ""),
            (Facts::Free, "free", Level::Ok, ""),
            (Facts::Silent("refused".to_owned()), "silent", Level::Error, "journalctl -u vitalbridge"),
            (Facts::Starting, "starting", Level::Warning, "do not restart it"),
            (Facts::Taken(process()), "taken", Level::Error, "stop that program"),
            (Facts::Taken(None), "taken", Level::Error, "another `server.listen`"),
            (Facts::Denied, "denied", Level::Error, "from 1024 on"),
            (Facts::NoSuchAddress, "no_such_address", Level::Error, "ip address"),
            (Facts::Other("odd".to_owned()), "unusable", Level::Error, "server.listen"),
        ] {
            let found = judge(&facts, listen);
            assert_eq!((found.check, found.level), (check, level), "{facts:?}");
            assert!(found.advice.as_deref().unwrap_or_default().contains(words), "{found:?}");
        }
        assert!(judge(&Facts::Taken(process()), listen).message.contains("nginx (process 7)"));
    }

    #[tokio::test]
    async fn an_address_that_is_not_known_is_not_looked_at() {
        let config = Config::parse("[server]\nlisten = '127.0.0.1:0'\n", Path::new("/"), &Place::default()).unwrap();
        let nobody = Patient::without_configuration();
        let any = Patient { config: Some(&config), daemon: Some(7), ..Patient::without_configuration() };
        for (patient, expected) in [(nobody, "unused"), (any, "any")] {
            let found = check(&patient).await;
            assert_eq!((found[0].check, found[0].level, found.len()), (expected, Level::Skipped, 1));
        }
    }

    #[tokio::test]
    async fn an_address_is_tried_out_as_the_daemon_would_use_it() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let taken = listener.local_addr().unwrap();
        let Facts::Taken(Some(process)) = try_out(taken).await else { panic!("it is taken") };
        assert_eq!(process.pid, std::process::id());
        drop(listener);
        assert_eq!(try_out(taken).await, Facts::Free);
        assert_eq!(try_out("203.0.113.7:8080".parse().unwrap()).await, Facts::NoSuchAddress);
        assert!(matches!(ask(taken, false).await, Facts::Silent(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_is_taken_and_not_served_is_silent_with_tls_too() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for has_tls in [false, true] {
            assert_eq!(ask(address, has_tls).await, Facts::Silent("no answer within 3 s".to_owned()), "{has_tls}");
        }
    }

    #[tokio::test]
    async fn what_answers_and_is_not_the_daemon_is_told_from_it() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\nok", Facts::Answers),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", Facts::Silent("it answers 503".to_owned())),
            ("220 mail.example ESMTP", Facts::Silent("what answers there is no HTTP".to_owned())),
        ] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let serving = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
                // What was asked is taken, or the end would be a reset.
                let mut asked = [0; 1024];
                let _ = stream.read(&mut asked).await.unwrap();
            };
            let (found, ()) = tokio::join!(ask(address, false), serving);
            assert_eq!(found, expected, "{answer}");
        }
    }
}
