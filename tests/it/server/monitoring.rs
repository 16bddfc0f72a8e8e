//! What the documents ask Prometheus for is what `/metrics` has.

use std::collections::BTreeSet;

use serde_json::Value as Json;
use vitalbridge::clock::{Mono, Stamp, Wall};
use vitalbridge::sources::ble::AirStatus;
use vitalbridge::sources::ble::policy::{RadioCounts, RadioState};

use super::{HOST, Server, UserRole};

/// Every name that a bridge with a radio exports.
async fn exported() -> BTreeSet<String> {
    let server = Server::start();
    let token = server.token(&server.claims(UserRole::Service));
    let request =
        format!("GET /metrics HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\r\n");
    let page = server.http(&request).await;
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    let radio =
        RadioState { obstacle: None, reason: None, scanning: false, counts: RadioCounts::default(), fruitless: 0 };
    let air = AirStatus { radio: Some(radio), ..AirStatus::default() };
    let air = air.to_prometheus(Stamp { mono: Mono(0), wall: Wall(0) });
    let types = page.lines().chain(air.lines()).filter_map(|line| line.strip_prefix("# TYPE "));
    types.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// The metrics that a text names.
fn named(text: &str) -> BTreeSet<String> {
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    text.split(|letter| !is_word(letter))
        .filter(|word| word.strip_prefix("vitalbridge_").is_some_and(|rest| !rest.is_empty()))
        .map(str::to_owned)
        .collect()
}

fn expressions(of: &Json, found: &mut Vec<String>) {
    match of {
        Json::Object(members) => {
            for (name, member) in members {
                match (name.as_str(), member) {
                    ("expr" | "definition" | "query", Json::String(text)) => found.push(text.clone()),
                    _ => expressions(member, found),
                }
            }
        }
        Json::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        _ => {}
    }
}

#[tokio::test]
async fn every_metric_of_the_grafana_dashboard_is_exported() {
    let dashboard: Json = serde_json::from_str(include_str!("../../../docs/examples/grafana-dashboard.json")).unwrap();
    let mut asked = Vec::new();
    expressions(&dashboard, &mut asked);
    assert!(asked.len() > 40, "{} expressions", asked.len());
    let named = named(&asked.join(" "));
    let exported = exported().await;
    assert!(named.len() > 35, "{named:?}");
    assert_eq!(named.difference(&exported).collect::<Vec<_>>(), Vec::<&String>::new());
    // Each panel asks for something, at a place of its own.
    let panels = dashboard["panels"].as_array().unwrap();
    let places: BTreeSet<String> = panels.iter().map(|panel| panel["gridPos"].to_string()).collect();
    assert_eq!(places.len(), panels.len());
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert!(!panel["targets"].as_array().unwrap().is_empty(), "{}", panel["title"]);
    }
}

#[tokio::test]
async fn every_metric_of_the_monitoring_page_is_exported() {
    let page = include_str!("../../../docs/monitoring.md");
    let named = named(page);
    assert!(named.len() >= 6, "{named:?}");
    assert_eq!(named.difference(&exported().await).collect::<Vec<_>>(), Vec::<&String>::new());
}
