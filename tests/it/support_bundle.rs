//! The support bundle by the real binary: what is in it, and that no patient, no reading and no secret is.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use crate::bridge::{Bridge, eventually, program, token};

const NAME: &str = "Erika Mustermann";
const PASSWORD: &str = "correct-horse-battery";

/// The files of a bundle by their names.
fn unpacked(path: &Path) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()));
    let mut found = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        found.insert(name, text);
    }
    found
}

#[tokio::test]
async fn a_bundle_has_what_helps_and_neither_patients_nor_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    // A number that stands nowhere else.
    std::fs::write(path("numerics.csv"), "t_s,HR,SpO2\n0,71.377,97\n100000,71.377,97\n").unwrap();
    std::fs::write(path("password"), format!("{PASSWORD}\n")).unwrap();
    let file = path("vitalbridge.toml");
    let text = format!(
        "[server]\nlisten = '127.0.0.1:0'\n[store]\ndir = 'state'\n[mqtt]\nbroker = 'mqtt://127.0.0.1:1'\nusername = 'kim'\n\
         password_file = 'password'\n[[patient]]\nid = 'P-0815'\nname = '{NAME}'\nbed = 'window'\n\
         [[source]]\nid = 'recording'\nkind = 'replay'\nfile = 'numerics.csv'\npatient = 'P-0815'\n"
    );
    let listen = crate::mqtt::free_port();
    std::fs::write(&file, text.replace("127.0.0.1:0'", &format!("127.0.0.1:{listen}'"))).unwrap();
    let bin = path("bin");
    std::fs::create_dir(&bin).unwrap();
    let secret = || std::fs::read_to_string(path("state/token.secret")).unwrap().trim().to_owned();
    let bridge = Bridge::start(&["run", "--config", file.to_str().unwrap()]);
    let token = token(&path("state"), &["--role", "admin"]);
    // A journal that says too much.
    let script = format!(
        "#!/bin/sh\necho 'alert of P-0815 ({NAME}): the password {PASSWORD} and Bearer {token}; secret {}'\n",
        secret()
    );
    for program in ["journalctl", "systemctl"] {
        std::fs::write(bin.join(program), &script).unwrap();
        std::fs::set_permissions(bin.join(program), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    eventually("readings are stored", Duration::from_secs(20), || {
        std::fs::metadata(path("state/vitals.db-wal")).ok().filter(|log| log.len() > 100_000).map(drop)
    })
    .await;
    let run = |arguments: &[&str]| {
        let out = path(arguments.last().unwrap());
        let mut command = program();
        command.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
        command.args(["support-bundle", "--config", file.to_str().unwrap()]);
        command.args(&arguments[..arguments.len() - 1]).arg("--out").arg(&out);
        let output = command.output().unwrap();
        (output, out)
    };
    let (output, out) = run(&["whole.tar.gz"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    let files = unpacked(&out);
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    let all =
        ["README.txt", "config.json", "doctor.json", "log.txt", "metrics.txt", "store.json", "unit.txt", "version.txt"];
    assert_eq!(names, all);
    for (name, text) in &files {
        for private in [NAME, "Erika", "P-0815", PASSWORD, secret().as_str(), token.as_str(), "kim", "71.377"] {
            assert!(!text.contains(private), "{private} is in {name}:\n{text}");
        }
    }
    assert!(
        files["log.txt"].starts_with("alert of patient-1 ([hidden]): the password [hidden] and [hidden]"),
        "{files:?}"
    );
    assert!(files["metrics.txt"].contains("# TYPE vitalbridge_"), "{}", files["metrics.txt"]);
    assert!(files["version.txt"].contains(env!("CARGO_PKG_VERSION")));
    let json = |name: &str| serde_json::from_str::<serde_json::Value>(&files[name]).unwrap();
    assert_eq!(json("doctor.json")["daemon"], bridge.pid());
    assert!(json("store.json")["events"].as_u64().unwrap() > 0);
    assert_eq!(json("config.json")["patient"][0]["id"], "patient-1");
    assert_eq!(json("config.json")["server"]["listen"], format!("127.0.0.1:{listen}"));

    let (again, _) = run(&["whole.tar.gz"]);
    assert!(!again.status.success(), "a file that is there was written over");
    let (short, out) = run(&["--no-log", "short.tar.gz"]);
    assert!(short.status.success() && !unpacked(&out).contains_key("log.txt"));
    assert_eq!(bridge.stop(), Some(0));
    let (later, out) = run(&["later.tar.gz"]);
    assert!(later.status.success(), "{later:?}");
    assert!(unpacked(&out)["metrics.txt"].contains("the daemon does not run"));
}

/// A bundle of a machine whose `journalctl` and `systemctl` say this.
fn bundle_where_the_system_says(said: &str, dir: &Path, config: &Path, out: &Path) -> BTreeMap<String, String> {
    let bin = dir.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::write(dir.join("said"), said).unwrap();
    for program in ["journalctl", "systemctl"] {
        std::fs::write(bin.join(program), format!("#!/bin/sh\ncat '{}'\n", dir.join("said").display())).unwrap();
        std::fs::set_permissions(bin.join(program), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = program();
    command.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    command.args(["support-bundle", "--config", config.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    unpacked(out)
}

#[test]
fn short_numbers_wards_users_and_patients_of_before_are_hidden_and_secrets_of_a_wrong_configuration_too() {
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (dir.path().join("vitalbridge.toml"), dir.path().join("b.tar.gz"));
    std::fs::write(dir.path().join("password"), PASSWORD).unwrap();
    // `nonsense` is a table that nobody knows: the configuration has errors, and is TOML.
    let text = "[nonsense]\n[mqtt]\nbroker = 'mqtt://b'\nusername = 'u'\npassword_file = 'password'\n\
                [[patient]]\nid = 'P1'\nname = 'Jo'\nward = 'palliative-west'\n";
    std::fs::write(&file, text).unwrap();
    let said = format!("P1 (Jo) of palliative-west; patient=P-9999 user=lena said {PASSWORD}; Johanna P12\n");
    let files = bundle_where_the_system_says(&said, dir.path(), &file, &out);
    let expected = "patient-1 ([hidden]) of [hidden]; patient=[hidden] user=[hidden] said [hidden]; Johanna P12\n";
    assert_eq!((files["log.txt"].as_str(), files["unit.txt"].as_str()), (expected, expected));
    let config: serde_json::Value = serde_json::from_str(&files["config.json"]).unwrap();
    let patient = serde_json::json!({"id": "patient-1", "name": "[hidden]", "ward": "[hidden]"});
    assert_eq!(config["patient"][0], patient);
}

#[test]
fn a_configuration_that_cannot_be_read_goes_in_as_a_finding_and_not_as_text() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("vitalbridge.toml");
    std::fs::write(&file, format!("[[patient]]\nname = \"{NAME}\"\nbed = 'window'\nid = ")).unwrap();
    let out = dir.path().join("b.tar.gz");
    let said = format!("refused patient=P-0815 {NAME} of the window");
    let files = bundle_where_the_system_says(&said, dir.path(), &file, &out);
    // Nobody knows the patients: what the journal says of them stays where it is.
    assert!(files["log.txt"].starts_with("not there: the configuration cannot be read"), "{files:?}");
    assert!(files["unit.txt"].contains("patient=[hidden] [hidden] of the [hidden]"), "{files:?}");
    assert!(files.values().all(|text| !text.contains("P-0815") && !text.contains("window")), "{files:?}");
    assert!(files["config.json"].contains("cannot be read as TOML"), "{files:?}");
    assert!(files["doctor.json"].contains("\"wrong\""), "{files:?}");
    assert!(files.values().all(|text| !text.contains(NAME)), "{files:?}");
}
