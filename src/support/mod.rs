//! The support bundle: what somebody needs who helps from afar, without patients and without secrets.

mod metrics;
mod redact;

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value as Json, json};

use self::redact::Redactor;
use crate::clock::{Clock, Wall};
use crate::config::{Config, MAX_FILE_BYTES, Place};
use crate::doctor::{self, Report, secret_files};
use crate::store;
use crate::systemd;

/// Lines of the journal, the newest.
const LOG_LINES: &str = "1000";

/// A program that tells something of the machine ends within this time.
const PROGRAM: Duration = Duration::from_secs(10);

/// Bytes of one program's answer that are kept.
const MAX_ANSWER_BYTES: usize = 2 * 1024 * 1024;

/// The store is looked at for so long; `doctor` has checked it.
const STORE: Duration = Duration::from_secs(5);

/// Bytes of a secret file that are looked for in the texts.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// What is wanted.
#[derive(Debug)]
pub struct Wanted {
    /// The configuration file.
    pub config: PathBuf,
    /// What the command line says over it.
    pub place: Place,
    /// Whether lines of the journal go in.
    pub with_log: bool,
}

/// What goes in: a name and a text each.
type Files = Vec<(&'static str, String)>;

const READ_ME: &str = "A support bundle of vitalbridge. It has no readings, no names of patients and no secrets; patients' numbers \
are replaced by patient-1, patient-2 and so on, in the order of the configuration. Where the configuration cannot be read nobody knows \
the patients, and the journal is left out. Look through it before you pass it on.\n\n\
version.txt   the program and the system\nconfig.json   the configuration without what is private\ndoctor.json   what `vitalbridge \
doctor` found\nmetrics.txt   the numbers of the running daemon\nstore.json    how large the log is and how long it lasts\nunit.txt      \
what systemd says of the service\nlog.txt       the newest lines of the journal, without those that trace each value\n";

/// Collects a bundle and writes it to a new file that only its owner can read.
///
/// # Errors
/// The file is there already or cannot be written. What cannot be collected is said in its place.
pub async fn write(wanted: &Wanted, out: &Path) -> anyhow::Result<()> {
    let now = Clock::System.now().wall;
    let files = Box::pin(collect(wanted)).await?;
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(out);
    let mut file = file.with_context(|| format!("cannot make {}", out.display()))?;
    pack(&files, now, &mut file)
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write {}", out.display()))
}

/// The name of a bundle that is made now.
pub fn default_name() -> PathBuf {
    let now = Clock::System.now().wall.to_string();
    let digits: String = now.chars().take(19).filter(char::is_ascii_digit).collect();
    PathBuf::from(format!("vitalbridge-support-{digits}.tar.gz"))
}

async fn collect(wanted: &Wanted) -> anyhow::Result<Files> {
    let report = Box::pin(doctor::examine(&wanted.config, &wanted.place)).await;
    let config = Config::look(&wanted.config, &wanted.place).0.ok();
    let state_dir =
        config.as_ref().map_or_else(|| Config::empty(&wanted.place).state_dir, |config| config.state_dir.clone());
    let table = table(&wanted.config);
    let redactor = redactor(config.as_ref(), table.as_ref(), &wanted.config)?;
    let metrics = match (&config, report.daemon) {
        (Some(config), Some(_)) => metrics::of(config).await.unwrap_or_else(|reason| format!("not there: {reason}\n")),
        (None, _) => "not there: the configuration has errors\n".to_owned(),
        (_, None) => "not there: the daemon does not run\n".to_owned(),
    };
    let unit = ["status", "--no-pager", "--lines=0", "--full", "vitalbridge"];
    let mut files = vec![
        ("README.txt", READ_ME.to_owned()),
        ("version.txt", version().await),
        ("config.json", configuration(table.as_ref(), &redactor)?),
        ("doctor.json", serde_json::to_string_pretty::<Report>(&report)?),
        ("metrics.txt", metrics),
        ("store.json", statistics(config.as_ref(), &state_dir).await?),
        ("unit.txt", said_by("systemctl", &unit).await),
    ];
    if wanted.with_log && table.is_none() {
        let reason = "not there: the configuration cannot be read, so that nobody knows which of the names in the journal are patients'\n";
        files.push(("log.txt", reason.to_owned()));
    } else if wanted.with_log {
        // Values of patients are logged at trace alone, which is priority 7 in the journal.
        let lines = ["--unit=vitalbridge", "--no-pager", "--output=short-iso", "--priority=6", "--lines", LOG_LINES];
        files.push(("log.txt", said_by("journalctl", &lines).await));
    }
    for (name, text) in files.iter_mut().skip(1) {
        *text = if ["log.txt", "unit.txt"].contains(name) { redactor.log(text) } else { redactor.text(text) };
    }
    Ok(files)
}

/// Knows the patients and the secrets of a configuration; of one with errors, as far as it can be read.
fn redactor(config: Option<&Config>, table: Option<&Json>, file: &Path) -> anyhow::Result<Redactor> {
    const WORDS: [&str; 4] = ["id", "name", "bed", "ward"];
    let member = |patient: &Json, name: &str| match patient.get(name) {
        Some(Json::String(text)) => text.clone(),
        Some(Json::Number(number)) => number.to_string(),
        _ => String::new(),
    };
    let patients: Vec<[String; 4]> = match table {
        Some(table) => {
            let listed = table.get("patient").and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
            listed.iter().map(|patient| WORDS.map(|name| member(patient, name))).collect()
        }
        // What is no TOML has lines all the same, and its error may quote one.
        None => lines_that_name(&read_small(file).unwrap_or_default(), &WORDS),
    };
    let known =
        patients.iter().map(|[id, others @ ..]| (id.as_str(), others.iter().map(String::as_str).collect::<Vec<_>>()));
    let mut files: Vec<PathBuf> =
        config.map(secret_files).unwrap_or_default().into_iter().map(|(_, path)| path).collect();
    if let Some(table) = table.filter(|_| config.is_none()) {
        files.push(Config::empty(&Place::default()).secret_file);
        named_secrets(table, file.parent().unwrap_or(Path::new(".")), &mut files);
    }
    let secrets = files.into_iter().filter_map(|path| {
        use std::io::Read as _;
        let mut text = String::new();
        std::fs::File::open(path).ok()?.take(MAX_SECRET_BYTES).read_to_string(&mut text).ok()?;
        Some(text)
    });
    Ok(Redactor::new(known, secrets)?)
}

/// The values of lines such as `name = "..."`: which of them belong together cannot be seen, nor where one that is not closed ends.
fn lines_that_name(text: &str, words: &[&str]) -> Vec<[String; 4]> {
    let mut found = Vec::new();
    let parts = text.lines().flat_map(|line| std::iter::once(line).chain(line.split([',', '{', '}'])));
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        if !words.contains(&name.trim()) && name.trim() != "patient" {
            continue;
        }
        for value in [value, value.split('#').next().unwrap_or_default()] {
            found.push([
                String::new(),
                value.trim().trim_matches(['"', '\'']).to_owned(),
                String::new(),
                String::new(),
            ]);
        }
    }
    found
}

/// The files that a configuration with errors names as secrets, and the token secret where it usually is.
fn named_secrets(value: &Json, folder: &Path, files: &mut Vec<PathBuf>) {
    const NAMES: [&str; 4] = ["password_file", "secret_file", "key_file", "key"];
    let Some(members) = value.as_object() else {
        return value.as_array().into_iter().flatten().for_each(|one| named_secrets(one, folder, files));
    };
    for (name, value) in members {
        match value {
            Json::String(path) if NAMES.contains(&name.as_str()) => {
                let path = path.strip_prefix("credential:").map_or_else(|| folder.join(path), systemd::credential);
                files.push(path);
            }
            Json::String(path) if name == "dir" => files.push(folder.join(path).join("token.secret")),
            other => named_secrets(other, folder, files),
        }
    }
}

/// The file as a tree; `None`: it cannot be read as TOML.
fn table(file: &Path) -> Option<Json> {
    toml::from_str::<Json>(&read_small(file)?).ok()
}

fn read_small(file: &Path) -> Option<String> {
    let is_small = std::fs::metadata(file).ok()?.len() <= MAX_FILE_BYTES;
    is_small.then(|| std::fs::read_to_string(file).ok())?
}

fn configuration(table: Option<&Json>, redactor: &Redactor) -> anyhow::Result<String> {
    let shown = match table {
        Some(table) => redactor.configuration(table),
        // What cannot be taken apart cannot be shown without what is private.
        None => json!({"not_there": "the file cannot be read as TOML; doctor.json says what is wrong with it"}),
    };
    Ok(serde_json::to_string_pretty(&shown)?)
}

async fn version() -> String {
    let system = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let model = std::fs::read_to_string("/sys/firmware/devicetree/base/model").unwrap_or_default();
    let kernel = said_by("uname", &["-srm"]).await;
    let (version, kernel, model) = (env!("CARGO_PKG_VERSION"), kernel.trim(), model.trim_matches('\0'));
    format!("vitalbridge {version}\n{kernel}\n{model}\n{system}")
}

async fn statistics(config: Option<&Config>, state_dir: &Path) -> anyhow::Result<String> {
    let options = config.map(Config::store_options).unwrap_or_default();
    let told = match store::inspect(state_dir, &options, STORE).await {
        Ok(None) => json!({"not_there": "there is no database yet"}),
        Err(error) => json!({"not_there": error.to_string()}),
        Ok(Some(found)) => json!({
            "events": found.rows, "runs": found.runs, "unacknowledged": found.unacknowledged,
            "used_bytes": found.used_bytes, "budget_bytes": found.budget_bytes, "hours_left": found.hours_left,
            "suspect": found.is_suspect, "put_aside": found.put_aside.len(),
        }),
    };
    Ok(serde_json::to_string_pretty(&told)?)
}

/// What a program says, or why it says nothing.
async fn said_by(program: &str, arguments: &[&str]) -> String {
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).env("LC_ALL", "C").stdin(std::process::Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(PROGRAM, command.output()).await {
        Ok(Ok(output)) => {
            let said = if output.stdout.is_empty() { &output.stderr } else { &output.stdout };
            // The newest lines are the last.
            let start = said.len().saturating_sub(MAX_ANSWER_BYTES);
            String::from_utf8_lossy(said.get(start..).unwrap_or_default()).into_owned()
        }
        Ok(Err(error)) => format!("not there: {program}: {error}\n"),
        Err(_) => format!("not there: {program} did not end within {} s\n", PROGRAM.as_secs()),
    }
}

/// A gzipped tar of these files in one folder.
fn pack(files: &Files, now: Wall, out: &mut impl Write) -> io::Result<()> {
    let mut archive = tar::Builder::new(GzEncoder::new(out, Compression::default()));
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(text.len()).unwrap_or(0));
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(now.as_secs()).unwrap_or(0));
        archive.append_data(&mut header, format!("vitalbridge-support/{name}"), text.as_bytes())?;
    }
    archive.into_inner()?.finish().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_unpacks_to_what_went_in() {
        use std::io::Read as _;
        let files: Files = vec![("a.txt", "one".to_owned()), ("b.json", "{}".to_owned())];
        let mut packed = Vec::new();
        pack(&files, Wall(1_795_000_000_000), &mut packed).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed.as_slice()));
        let mut found = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            assert_eq!((entry.header().mode().unwrap(), entry.header().mtime().unwrap()), (0o600, 1_795_000_000));
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            found.push((entry.path().unwrap().display().to_string(), text));
        }
        assert_eq!(found[0], ("vitalbridge-support/a.txt".to_owned(), "one".to_owned()));
        assert_eq!((found[1].1.as_str(), found.len()), ("{}", 2));
    }

    #[test]
    fn secrets_of_a_configuration_with_errors_are_known_all_the_same() {
        let table = serde_json::json!({
            "store": {"dir": "state"}, "mqtt": {"password_file": "p", "tls": {"key": "/k"}},
            "auth": {"secret_file": "credential:token.secret"}, "wrong": [{"key_file": "in/a/list"}],
        });
        let mut files = Vec::new();
        named_secrets(&table, Path::new("/etc/v"), &mut files);
        files.sort();
        let credential = systemd::credential("token.secret");
        let mut expected = vec![
            "/etc/v/p".into(),
            "/k".into(),
            "/etc/v/state/token.secret".into(),
            "/etc/v/in/a/list".into(),
            credential,
        ];
        expected.sort();
        assert_eq!(files, expected);
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_said_to_be_so() {
        assert!(said_by("/nonexistent/program", &[]).await.starts_with("not there: "));
        assert_eq!(said_by("sh", &["-c", "echo out; echo err >&2"]).await, "out\n");
        assert_eq!(said_by("sh", &["-c", "echo err >&2"]).await, "err\n");
    }
}
