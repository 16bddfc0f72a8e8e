//! docs/api.md: every example of it runs against a bridge.

use std::process::Command;
use std::time::Duration;

use crate::bridge::{Bridge, eventually, token};

/// The shell lines of the page, example by example.
fn examples() -> Vec<String> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/api.md")).unwrap();
    let blocks = page.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap().to_owned());
    blocks.collect()
}

#[tokio::test]
async fn every_example_of_the_page_works() {
    let examples = examples();
    assert!(examples.len() >= 8, "{examples:?}");
    let dir = tempfile::tempdir().unwrap();
    let bridge = Bridge::start(&["demo", "--listen", "127.0.0.1:0", "--state-dir", dir.path().to_str().unwrap()]);
    let token = token(dir.path(), &["--role", "clinician"]);
    let run = |example: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-e", "-c", example]).current_dir(dir.path());
        shell.env("BRIDGE", format!("http://{}", bridge.address)).env("TOKEN", &token);
        shell.output().unwrap()
    };
    // The first readings have to be on disk.
    let first = r#"curl -fsS -H "Authorization: Bearer $TOKEN" "$BRIDGE/api/v1/readings?limit=1""#;
    eventually("the first reading", Duration::from_secs(30), || {
        String::from_utf8(run(first).stdout).unwrap().contains("health_update").then_some(())
    })
    .await;
    for example in examples {
        let output = run(&example);
        let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && !text.trim().is_empty(), "{example}\n{text}\n{errors}");
    }
}
