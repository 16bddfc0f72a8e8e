//! The document of the HTTP routes: it has every route of the router, and no other.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::Value as Json;
use vitalbridge::server::routes::router;

use super::Server;

/// The methods and paths that the router really has, as `get /healthz`.
fn routes_of(server: &Server) -> BTreeSet<String> {
    // The library does not list its routes, but it tells them to people who debug.
    let told = format!("{:?}", router(server.site.clone()));
    let end = told.find("fallback_router").unwrap();
    let told = &told[..end];
    let (routes, paths) = told.split_once("paths: {").unwrap();
    let path = Regex::new(r#"RouteId\((\d+)\): "([^"]+)""#).unwrap();
    let route = Regex::new(r"RouteId\((\d+)\): MethodRouter\(MethodRouter \{ (.*?)fallback: ").unwrap();
    let method = Regex::new(r"(get|delete|options|patch|post|put|trace|connect): (None|Route|BoxedHandler)").unwrap();
    let mut found = BTreeSet::new();
    for named in path.captures_iter(paths) {
        let methods = route.captures_iter(routes).find(|it| it[1] == named[1]).unwrap_or_else(|| panic!("{routes}"));
        let before = found.len();
        for method in method.captures_iter(&methods[2]).filter(|it| &it[2] != "None") {
            found.insert(format!("{} {}", &method[1], &named[2]));
        }
        assert!(found.len() > before, "{} has no method: {}", &named[2], &methods[2]);
    }
    found
}

fn routes_in(document: &Json) -> BTreeSet<String> {
    let paths = document["paths"].as_object().unwrap();
    let methods = |(path, methods): (&String, &Json)| {
        methods.as_object().unwrap().keys().map(|method| format!("{method} {path}")).collect::<Vec<_>>()
    };
    paths.iter().flat_map(methods).collect()
}

/// True for what nobody has to sign in to.
fn is_open(operation: &Json) -> bool {
    operation.get("security") == Some(&serde_json::json!([]))
}

#[tokio::test]
async fn every_route_is_in_the_document_and_the_document_has_no_other() {
    let server = Server::start();
    let answer = server.request(None, "GET", "/api/v1/openapi.json").await;
    assert_eq!((answer.status, answer.kind.as_str()), (200, "application/json"));
    let document = answer.json();
    let (real, described) = (routes_of(&server), routes_in(&document));
    assert!(real.contains("put /api/v1/patients/{id}/limits/{rule}") && real.len() > 40, "{real:?}");
    let missing: Vec<&String> = real.difference(&described).collect();
    assert!(missing.is_empty(), "describe in src/server/openapi/list.rs: {missing:?}");
    let gone: Vec<&String> = described.difference(&real).collect();
    assert!(gone.is_empty(), "no such route: {gone:?}");
}

#[tokio::test]
async fn the_document_holds_together() {
    let server = Server::start();
    let text = server.request(None, "GET", "/api/v1/openapi.json").await.text();
    let document: Json = serde_json::from_str(&text).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let reference = Regex::new(r##""\$ref":"#/components/schemas/([^"]+)""##).unwrap();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let used: BTreeSet<String> = reference.captures_iter(&text).map(|found| found[1].to_owned()).collect();
    let known: BTreeSet<String> = schemas.keys().cloned().collect();
    assert_eq!(used, known);
    let mut names = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            assert!(names.insert(operation["operationId"].as_str().unwrap()), "{method} {path}");
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.keys().any(|status| matches!(status.as_bytes()[0], b'1' | b'2')), "{method} {path}");
            let is_open = is_open(operation);
            assert_eq!(responses.contains_key("401"), !is_open || path.ends_with("/sign-in"), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn what_needs_a_token_says_so() {
    let server = Server::start();
    let document = server.request(None, "GET", "/api/v1/openapi.json").await.json();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            if operation["responses"].get("426").is_some() {
                continue;
            }
            let asked =
                path.replace("{id}", "x").replace("{rule}", "x").replace("{room}", "x").replace("{address}", "x");
            let answer = server.request(None, &method.to_uppercase(), &asked).await;
            // Nothing was sent by which a code could be refused.
            let is_sign_in = path.ends_with("/sign-in");
            assert_eq!(answer.status == 401, !is_open(operation) && !is_sign_in, "{method} {path}: {}", answer.text());
            assert!(
                operation["responses"].get(answer.status.to_string()).is_some(),
                "{method} {path}: {}",
                answer.status
            );
        }
    }
}
