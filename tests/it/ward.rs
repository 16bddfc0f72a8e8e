//! A real bridge with one patient and no sensor, that can be started again where it was.

use std::path::PathBuf;

use crate::bridge::{Bridge, token};

const CONFIG: &str = r#"
[bridge]
id = "ward"
[server]
listen = "127.0.0.1:0"
[store]
dir = "STATE"
[[patient]]
id = "P-1"
bed = "1"
"#;

/// Its directory and its configuration.
pub(crate) struct Ward {
    pub(crate) dir: tempfile::TempDir,
    file: PathBuf,
}

impl Ward {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("vitalbridge.toml");
        let ward = Self { dir, file };
        ward.configure("");
        ward
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// More of the configuration.
    pub(crate) fn configure(&self, more: &str) {
        let text = CONFIG.replace("STATE", self.state().to_str().unwrap());
        std::fs::write(&self.file, format!("{text}{more}")).unwrap();
    }

    pub(crate) fn start(&self) -> Bridge {
        Bridge::start(&["run", "--config", self.file.to_str().unwrap()])
    }

    pub(crate) fn token(&self, user: &str, more: &[&str]) -> String {
        token(&self.state(), &[&["--user", user], more].concat())
    }
}
