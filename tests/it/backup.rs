//! The backup of a running bridge, as the book of operations has it: it ends, it is whole, and a bridge goes on from it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::bridge::{Bridge, eventually};

/// The lines of the book that copy the database of a running bridge, for these folders and without `sudo`.
fn lines(state: &Path, backups: &Path) -> Vec<String> {
    let book = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md")).unwrap();
    let blocks = book.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    let block = blocks.into_iter().find(|block| block.contains("sudo sqlite3 ")).unwrap();
    let here = |line: &str| {
        let line = line.strip_prefix("sudo ").unwrap();
        let line = line.replace("/var/lib/vitalbridge", state.to_str().unwrap());
        line.replace("/var/backups/vitalbridge", backups.to_str().unwrap())
    };
    // The files beside the database, and the configuration, are no part of this.
    block.lines().filter(|line| !line.contains(" tar ")).map(here).collect()
}

fn number(database: &Path, sql: &str) -> i64 {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = rusqlite::Connection::open_with_flags(database, flags).unwrap();
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn the_backup_of_a_bridge_that_stores_readings_ends_and_another_bridge_goes_on_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let row = |tenth: u32| format!("{}.{},{},97\n", tenth / 10, tenth % 10, 60 + tenth % 40);
    let rows: String = std::iter::once("t_s,HR,SpO2\n".to_owned()).chain((0..20_000).map(row)).collect();
    std::fs::write(path("numerics.csv"), rows).unwrap();
    let configured = |name: &str, state: &str| {
        let text = format!(
            "[server]\nlisten = '127.0.0.1:0'\n[store]\ndir = '{state}'\n[[patient]]\nid = 'P-1'\n\
             [[source]]\nid = 'recording'\nkind = 'replay'\nfile = 'numerics.csv'\npatient = 'P-1'\n"
        );
        std::fs::write(path(name), text).unwrap();
        path(name).to_str().unwrap().to_owned()
    };
    let bridge = Bridge::start(&["run", "--config", &configured("one.toml", "state")]);
    let live = path("state/vitals.db");
    let stored = || number(&live, "SELECT count(*) FROM event") + number(&live, "SELECT count(*) FROM reading");
    eventually("readings are stored", Duration::from_mins(1), || (stored() > 5).then_some(())).await;
    // The second one replaces the first.
    for _ in 0..2 {
        for line in lines(&path("state"), &path("backups")) {
            let output = Command::new("timeout").args(["60", "sh", "-c", &line]).output().unwrap();
            assert!(output.status.success(), "{line}: {output:?}");
        }
    }
    let copy = path("backups/vitals.db");
    let whole = |database: &Path| {
        let connection = rusqlite::Connection::open(database).unwrap();
        connection.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap()
    };
    assert_eq!(whole(&copy), "ok");
    let version = "SELECT user_version FROM pragma_user_version";
    assert_eq!(number(&copy, version), number(&live, version));
    let before = stored();
    eventually("the bridge goes on", Duration::from_mins(1), || (stored() > before).then_some(())).await;
    assert_eq!(bridge.stop(), Some(0));

    let starts = number(&copy, "SELECT count(*) FROM epoch");
    std::fs::create_dir(path("restored")).unwrap();
    std::fs::copy(&copy, path("restored/vitals.db")).unwrap();
    let bridge = Bridge::start(&["run", "--config", &configured("two.toml", "restored")]);
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(number(&path("restored/vitals.db"), "SELECT count(*) FROM epoch"), starts + 1);
}
