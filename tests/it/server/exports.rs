//! Exports and those who take them: several at once, one that takes nothing, and one that goes away.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_util::sync::CancellationToken;
use vitalbridge::server::accept;
use vitalbridge::server::jwt::Claims;
use vitalbridge::server::routes::router;
use vitalbridge::tasks::Role;
use vitalbridge::vitals::Metric;

use super::{HOST, Server, UserRole, patients};
use crate::bridge::now;

/// Exports that are written at once.
const AT_ONCE: usize = 4;

/// Readings of which an export is far larger than what waits on the way to a client.
const READINGS: i32 = 8000;

/// A slot is free again within this time, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// A server whose connections have one router, as those of a daemon have: the places are its own.
struct Ward {
    server: Server,
    router: Router,
    /// How many have asked: each of them is another user.
    asked: AtomicU64,
}

impl Ward {
    async fn open() -> Self {
        let server = Server::start();
        let patient = patients(&server)[0].clone();
        for n in 0..READINGS {
            server.reading(&patient, Metric::HeartRate, 60 + n % 40).await;
        }
        server.settled().await;
        let router = router(server.site.clone());
        Self { server, router, asked: AtomicU64::new(0) }
    }

    /// An export that has begun, and of which no more is taken than its status.
    async fn begun(&self) -> (String, DuplexStream) {
        self.begun_by(&format!("user-{}", self.asked.fetch_add(1, Ordering::Relaxed))).await
    }

    /// The same of this user.
    async fn begun_by(&self, user: &str) -> (String, DuplexStream) {
        let (mut stream, theirs) = tokio::io::duplex(4096);
        let (router, stop) = (self.router.clone(), CancellationToken::new());
        self.server.site.tasks.spawn("connection", Role::Helper, async move {
            accept::serve(theirs, ([127, 0, 0, 1], 50_000).into(), router, stop, None).await;
            Ok(())
        });
        let request = format!(
            "GET /api/v1/export?format=ndjson&metric=heart_rate HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\
             authorization: Bearer {}\r\n\r\n",
            self.server.token(&Claims { sub: user.to_owned(), ..self.server.claims(UserRole::Viewer) })
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        (String::from_utf8_lossy(&answer[9..]).into_owned(), stream)
    }

    /// As many as are written at once.
    async fn all_begun(&self) -> Vec<DuplexStream> {
        let mut streams = Vec::new();
        for _ in 0..AT_ONCE {
            let (status, stream) = self.begun().await;
            assert_eq!(status, "200");
            streams.push(stream);
        }
        streams
    }
}

async fn rest_of(mut stream: DuplexStream) -> String {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

/// The last chunk (RFC 9112, 7.1): what ends without it is not whole.
fn is_whole(answer: &str) -> bool {
    answer.ends_with("\r\n0\r\n\r\n")
}

#[tokio::test]
async fn four_are_written_at_once_and_one_more_is_told_when_to_come_back() {
    let ward = Ward::open().await;
    let streams = ward.all_begun().await;
    let (status, refused) = ward.begun().await;
    let refused = rest_of(refused).await.to_lowercase();
    assert_eq!(status, "503");
    assert!(refused.contains("retry-after: 5") && refused.contains(r#""code":"busy""#), "{refused}");
    for answer in futures_util::future::join_all(streams.into_iter().map(rest_of)).await {
        assert!(is_whole(&answer));
        let rows = answer.matches(r#""type":"health_update""#).count();
        assert_eq!(i32::try_from(rows).unwrap(), READINGS, "each has all of it");
    }
    assert_eq!(ward.begun().await.0, "200");
}

#[tokio::test]
async fn a_user_has_one_at_once() {
    let ward = Ward::open().await;
    let (status, first) = ward.begun_by("lena").await;
    assert_eq!(status, "200");
    let (status, refused) = ward.begun_by("lena").await;
    let refused = rest_of(refused).await.to_lowercase();
    assert!(status == "429" && refused.contains("retry-after: ") && refused.contains(r#""code":"busy""#), "{refused}");
    assert_eq!(ward.begun_by("otto").await.0, "200");
    assert!(is_whole(&rest_of(first).await));
    assert_eq!(ward.begun_by("lena").await.0, "200", "the first one has ended");
}

#[tokio::test]
async fn who_goes_away_frees_the_place() {
    let ward = Ward::open().await;
    drop(ward.all_begun().await);
    let limit = now() + LIMIT;
    while ward.begun().await.0 != "200" {
        assert!(now() < limit, "the places of those who went away are still taken");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn who_takes_nothing_is_broken_off_and_frees_the_place() {
    let ward = Ward::open().await;
    let streams = ward.all_begun().await;
    assert_eq!(ward.begun().await.0, "503");
    // Nobody could make the bytes that are on their way fewer, so time alone has to pass.
    tokio::time::pause();
    let mut waited = Duration::ZERO;
    while ward.begun().await.0 != "200" {
        assert!(waited < Duration::from_mins(1), "the places of those who take nothing are still taken");
        tokio::time::sleep(Duration::from_secs(1)).await;
        waited += Duration::from_secs(1);
    }
    for stream in streams {
        assert!(!is_whole(&rest_of(stream).await), "a half is not taken for a whole");
    }
}
