//! The package without building it: what it is made of, its manual pages and completions, the configuration that it brings, and
//! secrets that systemd hands over.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use crate::bridge::{Bridge, program};

#[expect(dead_code, reason = "its `main` belongs to the example that the package is built with")]
#[path = "../../packaging/manual.rs"]
mod manual;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(root(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn check(text: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("vitalbridge.toml");
    fs::write(&file, text).unwrap();
    let mut command = program();
    command.args(["check", "--json", "--config"]).arg(&file).stdin(Stdio::null());
    command.env_remove("CREDENTIALS_DIRECTORY").output().unwrap()
}

#[test]
fn the_configuration_of_the_package_is_taken_without_a_warning_and_has_nobody_in_it() {
    let output = check(&read("packaging/vitalbridge.toml"));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert_eq!(
        (&report["warnings"], &report["patients"]),
        (&serde_json::json!([]), &serde_json::json!([])),
        "{report}"
    );
    let config: toml::Table = toml::from_str(&read("packaging/vitalbridge.toml")).unwrap();
    assert_eq!(config["server"]["listen"].as_str(), Some("127.0.0.1:8080"), "this machine alone");
    assert!(!config.contains_key("source"));
}

#[test]
fn each_line_that_the_configuration_of_the_package_offers_can_be_taken() {
    let offered: String = read("packaging/vitalbridge.toml")
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(code) if !code.is_empty() && !code.starts_with(' ') => format!("{code}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert!(offered.lines().filter(|line| line.starts_with("[[source]]")).count() == 2, "{offered}");
    // The files of others, such as the certificate, are not on this machine; nothing else may be wrong.
    let report: serde_json::Value = serde_json::from_slice(&check(&offered).stdout).unwrap();
    let problems = report["problems"].as_array().unwrap();
    for problem in problems {
        let message = problem["message"].as_str().unwrap();
        assert!(message.contains("cannot read") || message.contains("cannot be read"), "{message}");
    }
    assert_eq!(problems.len(), 1, "the certificate: {report}");
    let warnings = report["warnings"].as_array().unwrap();
    for warning in warnings {
        assert!(warning["message"].as_str().unwrap().contains("has not been looked at"), "{warning}");
    }
    assert_eq!(warnings.len(), 3, "the token secret, the certificate's key, the password: {report}");
}

/// Every file below `folder` with its text.
fn made() -> (tempfile::TempDir, Vec<(String, String)>) {
    let dir = tempfile::tempdir().unwrap();
    manual::write(dir.path()).unwrap();
    let pages = fs::read_dir(dir.path().join("man1")).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap())
    });
    let pages = pages.collect();
    (dir, pages)
}

/// Each command below this one, with its words from the first.
fn commands(command: &clap::Command, words: &str, out: &mut Vec<(String, clap::Command)>) {
    out.push((words.to_owned(), command.clone()));
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        commands(below, &format!("{words} {}", below.get_name()), out);
    }
}

#[test]
fn each_command_has_a_manual_page_with_each_of_its_options_and_the_shells_complete_them() {
    let mut all = Vec::new();
    commands(&vitalbridge::cli::command(), "vitalbridge", &mut all);
    assert!(all.len() > 15, "{}", all.len());
    let (dir, pages) = made();
    assert_eq!(pages.len(), all.len());
    let shell = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    let (bash, zsh, fish) = (shell("vitalbridge.bash"), shell("_vitalbridge"), shell("vitalbridge.fish"));
    for (words, command) in all {
        let name = format!("{}.1", words.replace(' ', "-"));
        let (_, page) = pages.iter().find(|(file, _)| *file == name).unwrap_or_else(|| panic!("no page {name}"));
        for option in command.get_arguments().filter_map(clap::Arg::get_long) {
            let shown = format!("\\-\\-{}", option.replace('-', "\\-"));
            assert!(page.contains(&shown), "{name} does not show --{option}");
            for (shell, text) in [("bash", &bash), ("zsh", &zsh)] {
                assert!(text.contains(&format!("--{option}")), "{shell} does not complete --{option}");
            }
            assert!(fish.contains(&format!("-l {option}")), "fish does not complete --{option}");
        }
    }
    let (_, page) = pages.iter().find(|(file, _)| file == "vitalbridge.1").unwrap();
    for code in ["1", "2", "64", "69", "70", "77", "78"] {
        assert!(page.contains(&format!("\\fB{code}\\fR")), "vitalbridge.1 does not tell exit code {code}");
    }
}

#[test]
fn the_package_has_each_file_that_it_names_and_the_version_of_the_program() {
    let manifest: toml::Table = toml::from_str(&read("Cargo.toml")).unwrap();
    let package = &manifest["package"]["metadata"]["deb"];
    let assets = package["assets"].as_array().unwrap();
    let mut installed = Vec::new();
    for asset in assets {
        let (source, to) = (asset[0].as_str().unwrap(), asset[1].as_str().unwrap());
        installed.push(to);
        // What is below target is made when the package is built.
        let (begin, end) = source.split_once('*').unwrap_or((source, ""));
        let (folder, begin) = begin.rsplit_once('/').unwrap();
        assert!(
            source.starts_with("target/")
                || fs::read_dir(root(folder)).unwrap().any(|entry| {
                    let name = entry.unwrap().file_name().into_string().unwrap();
                    if source.contains('*') { name.starts_with(begin) && name.ends_with(end) } else { name == begin }
                }),
            "{source} is not there"
        );
    }
    for wanted in ["usr/lib/systemd/system/", "usr/lib/sysusers.d/vitalbridge.conf", "usr/lib/udev/rules.d/"] {
        assert!(installed.contains(&wanted), "{wanted}");
    }
    let changelog = read("packaging/deb/changelog");
    let expected = format!("vitalbridge ({}-{}) ", env!("CARGO_PKG_VERSION"), package["revision"].as_str().unwrap());
    assert!(changelog.starts_with(&expected), "packaging/deb/changelog does not begin with {expected}");
}

#[test]
fn the_package_scripts_are_sound_shell_and_only_a_purge_takes_data_away() {
    for name in ["preinst", "postinst", "prerm", "postrm"] {
        let path = root("packaging/deb").join(name);
        let checked = std::process::Command::new("sh").arg("-n").arg(&path).status().unwrap();
        assert!(checked.success(), "{name}");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("#!/bin/sh\n") && text.contains("\nset -e\n"), "{name}");
        let before_purge = text.split("= purge ]").next().unwrap();
        assert!(!before_purge.contains("rm -"), "{name} removes something before a purge");
    }
}

/// A purge where the state directory and the configuration are below `root`, with a disk mounted as `mounted`.
fn purged(mounted: &str) -> (tempfile::TempDir, Output) {
    let dir = tempfile::tempdir().unwrap();
    let below = |path: &str| format!("{}{path}", dir.path().display());
    let script = read("packaging/deb/postrm")
        .replace("/var/lib/vitalbridge", &below("/var/lib/vitalbridge"))
        .replace("/etc/vitalbridge", &below("/etc/vitalbridge"));
    fs::write(dir.path().join("postrm"), script).unwrap();
    let mut command = std::process::Command::new("unshare");
    let namespaces = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
    // The helper of Debian belongs to this machine's own systemd.
    let trial = format!(
        "mkdir -p '{root}/var/lib/vitalbridge' '{root}/etc/vitalbridge' && mount -t tmpfs none '{root}{mounted}' && \
         mkdir -p '{root}/var/lib/vitalbridge/.hidden/deep' && touch '{root}/etc/vitalbridge/a' && \
         sh -e -c 'command() {{ false; }}; set -- purge; . {root}/postrm' && ls -A '{root}{mounted}' && \
         find '{root}/var/lib' '{root}/etc' -mindepth 1",
        root = dir.path().display()
    );
    let output = command.args([namespaces, "sh", "-c", &trial]).output().unwrap();
    (dir, output)
}

#[test]
fn a_purge_empties_a_disk_that_is_mounted_at_one_of_its_folders_and_does_not_fail_there() {
    for mounted in ["/var/lib/vitalbridge", "/etc/vitalbridge"] {
        let (dir, output) = purged(mounted);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{mounted}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(said.trim(), format!("{}{mounted}", dir.path().display()), "what is left is the mount point, empty");
    }
}

/// A purge where the state directory is a link to a folder of `owner`; what it says, and whether data and link are there.
fn purged_through_a_link(owner: &str) -> (String, bool, bool) {
    let dir = tempfile::tempdir().unwrap();
    let below = |path: &str| dir.path().join(path);
    for folder in ["var/lib", "etc/vitalbridge", "ssd/.hidden"] {
        fs::create_dir_all(below(folder)).unwrap();
    }
    fs::write(below("ssd/vitals.db"), "patients").unwrap();
    std::os::unix::fs::symlink("../../ssd", below("var/lib/vitalbridge")).unwrap();
    let script = read("packaging/deb/postrm")
        .replace("/var/lib/vitalbridge", below("var/lib/vitalbridge").to_str().unwrap())
        .replace("/etc/vitalbridge", below("etc/vitalbridge").to_str().unwrap())
        .replace("= vitalbridge ]", &format!("= {owner} ]"));
    fs::write(below("postrm"), script).unwrap();
    let trial = format!("command() {{ false; }}; set -- purge; . {}", below("postrm").display());
    let output = std::process::Command::new("sh").args(["-e", "-c", &trial]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(!below("etc/vitalbridge").exists());
    (said, below("ssd/vitals.db").exists(), below("var/lib/vitalbridge").symlink_metadata().is_ok())
}

#[test]
fn a_purge_follows_a_link_to_where_the_data_are_and_says_what_it_leaves_to_others() {
    let owner = std::process::Command::new("id").arg("-un").output().unwrap();
    let (said, has_data, has_link) = purged_through_a_link(String::from_utf8(owner.stdout).unwrap().trim());
    assert_eq!((said.as_str(), has_data, has_link), ("", false, false), "patients' data outlive a purge");
    let (said, has_data, has_link) = purged_through_a_link("nobody-of-this-machine");
    assert!(said.contains("STAYS") && said.contains("/ssd"), "{said}");
    assert_eq!((has_data, has_link), (true, false));
}

#[test]
fn an_installation_whose_service_does_not_start_says_so_and_succeeds() {
    use std::os::unix::fs::PermissionsExt as _;
    for (words, answer, told) in [
        ("configure ''", "exit 1", true),
        ("configure 0.1.0-1", "exit 1", true),
        ("abort-remove", "exit 1", true),
        ("configure ''", "exit 0", false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        for tool in ["systemd-sysusers", "systemd-tmpfiles", "deb-systemd-helper", "systemctl", "runuser", "udevadm"] {
            fs::write(dir.path().join(tool), "#!/bin/sh\n").unwrap();
        }
        fs::write(dir.path().join("deb-systemd-invoke"), format!("#!/bin/sh\n{answer}\n")).unwrap();
        for entry in fs::read_dir(dir.path()).unwrap() {
            fs::set_permissions(entry.unwrap().path(), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let script = read("packaging/deb/postinst").replace("/run/systemd/system", dir.path().to_str().unwrap());
        let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &format!("set -- {words}; {script}")]).env("PATH", path);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words}: {said}");
        assert_eq!(said.contains("the service did NOT start"), told, "{words}: {said}");
    }
}

#[test]
fn each_adapter_of_a_built_in_profile_is_kept_from_modem_manager() {
    let rules = read("systemd/60-vitalbridge.rules");
    let mut found = 0;
    for entry in fs::read_dir(root("devices")).unwrap() {
        let path = entry.unwrap().path();
        let profile: toml::Table = toml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let parts = profile.values().filter_map(toml::Value::as_table).chain([&profile]);
        for id in parts.filter_map(|part| part.get("usb")?.as_array()).flatten() {
            let vendor = id.as_str().unwrap().split(':').next().unwrap();
            let rule = format!("ATTRS{{idVendor}}==\"{vendor}\", ENV{{ID_MM_DEVICE_IGNORE}}=\"1\"");
            assert!(rules.contains(&rule), "{}: no rule for {vendor}", path.display());
            found += 1;
        }
    }
    assert!(found > 5, "{found}");
}

#[test]
fn the_unit_watches_restarts_and_bounds_the_daemon_and_waits_for_no_network() {
    let unit = read("systemd/vitalbridge.service");
    let of = |key: &str| -> Vec<&str> {
        unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
    };
    for (key, value) in [
        ("Type", "notify"),
        ("WatchdogSec", "30"),
        ("Restart", "always"),
        ("RestartSec", "2"),
        ("StartLimitIntervalSec", "0"),
        ("RestartPreventExitStatus", "78"),
        ("TimeoutStartSec", "15min"),
        ("TimeoutStopSec", "20"),
        ("OOMScoreAdjust", "-500"),
        ("MemoryMax", "256M"),
        ("User", "vitalbridge"),
        ("StateDirectoryMode", "0700"),
    ] {
        assert_eq!(of(key), [value], "{key}");
    }
    // Without a network and without the time a bedside bridge has to start all the same. A driver that cannot be loaded keeps it
    // from nothing: `Wants`, and `modprobe@.service` is told to pass over it.
    let drivers = "modprobe@usbserial.service modprobe@cdc_acm.service";
    assert_eq!(of("After"), ["network.target bluetooth.service dbus.service", drivers]);
    assert_eq!(of("Wants"), [drivers]);
    for key in ["Requires", "BindsTo", "Requisite", "PartOf"] {
        assert_eq!(of(key), <[&str; 0]>::default(), "{key}");
    }
}

#[test]
fn the_driver_of_each_adapter_that_is_allowed_is_there_before_the_kinds_of_devices_are_looked_up() {
    let unit = read("systemd/vitalbridge.service");
    let has = |key: &str, word: &str| {
        unit.lines()
            .any(|line| line.strip_prefix(key).is_some_and(|words| words.split_whitespace().any(|one| one == word)))
    };
    // The module that registers each kind in /proc/devices; the others are parts of the kernel.
    let drivers = [("ttyUSB", Some("usbserial")), ("ttyACM", Some("cdc_acm")), ("ttyAMA", None), ("ttyS", None)];
    let allowed: Vec<&str> =
        unit.lines().filter_map(|line| line.strip_prefix("DeviceAllow=char-")?.strip_suffix(" rw")).collect();
    assert_eq!(allowed, drivers.map(|(kind, _)| kind));
    for module in drivers.iter().filter_map(|(_, module)| *module) {
        let service = format!("modprobe@{module}.service");
        assert!(has("Wants=", &service) && has("After=", &service), "{service}");
    }
}

/// `packaging/build` with these words; it ends before it builds anything.
fn build(words: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = std::process::Command::new("bash");
    command.arg(root("packaging/build")).args(words).env("SOURCE_DATE_EPOCH", "0").stdin(Stdio::null());
    command.env_remove("VITALBRIDGE_BIN").env_remove("LINTIAN").envs(environment.iter().copied());
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_program_that_must_not_be_packed_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    // Libraries of this machine's processor, which need nothing newer than Debian 12 has.
    let compile = |name: &str, more: &[&str]| {
        fs::write(file("a.c"), "int answer(void) { return 42; }\n").unwrap();
        let mut cc = std::process::Command::new("cc");
        cc.args(["-shared", "-nostdlib", "-fPIC", "-o", &file(name), &file("a.c")]).args(more);
        assert!(cc.status().unwrap().success(), "{name}");
        file(name)
    };
    let (ours, other) = match std::env::consts::ARCH {
        "x86_64" => ("amd64", "arm64"),
        "aarch64" => ("arm64", "amd64"),
        _ => ("armhf", "arm64"),
    };
    let good = compile("good", &[]);
    let library = compile("libother.so", &["-Wl,-soname,libother.so"]);
    let needy = compile("needy", &["-Wl,--no-as-needed", &library]);
    let large = file("large");
    fs::copy(&good, &large).unwrap();
    fs::OpenOptions::new().write(true).open(&large).unwrap().set_len(16 * 1024 * 1024 + 1).unwrap();
    let text = file("a.c");
    for (program, architecture, code, told) in [
        (&good, ours, 0, ""),
        (&good, other, 1, " is for '"),
        (&text, ours, 1, " is for ''"),
        (&needy, ours, 1, "needs libother.so"),
        (&large, ours, 1, "16777216 are allowed"),
        (&good, "mips", 64, "mips is no architecture"),
    ] {
        let (found, said) = build(&["--judge", program, architecture], &[]);
        assert!(found == Some(code) && said.contains(told), "{program} {architecture}: {found:?} {said}");
    }
    // The shell of every machine wants a newer glibc than this.
    let shell = build(&["--judge", "/bin/sh", ours], &[("VITALBRIDGE_GLIBC", "2.1")]);
    assert!(shell.0 == Some(1) && shell.1.contains("has 2.1"), "{shell:?}");
}

#[test]
fn a_build_of_packages_that_would_mix_programs_or_go_unchecked_is_refused_before_it_begins() {
    let program = [("VITALBRIDGE_BIN", "/bin/sh")];
    for words in [&[][..], &["amd64", "arm64"]] {
        let (code, said) = build(words, &program);
        assert!(code == Some(64) && said.contains("name its architecture, and no other"), "{words:?}: {code:?} {said}");
    }
    let (code, said) = build(&["amd64", "mips"], &[]);
    assert!(code == Some(64) && said.contains("mips is no architecture"), "{code:?} {said}");
    // A machine with what the script needs and without lintian.
    let dir = tempfile::tempdir().unwrap();
    for tool in ["bash", "dirname"] {
        let found = std::process::Command::new("sh").args(["-c", &format!("command -v {tool}")]).output().unwrap();
        let path = String::from_utf8(found.stdout).unwrap();
        std::os::unix::fs::symlink(path.trim(), dir.path().join(tool)).unwrap();
    }
    let (code, said) = build(&["amd64"], &[("PATH", dir.path().to_str().unwrap())]);
    assert!(code == Some(64) && said.contains("LINTIAN=skip"), "{code:?} {said}");
}

/// The JSON Web Token that `token issue` prints for this configuration and these credentials.
fn token_of(config: &Path, credentials: Option<&Path>) -> Output {
    let mut command = program();
    command.args(["token", "issue", "--config"]).arg(config).env_remove("CREDENTIALS_DIRECTORY");
    if let Some(credentials) = credentials {
        command.env("CREDENTIALS_DIRECTORY", credentials);
    }
    command.output().unwrap()
}

#[test]
fn the_token_secret_can_be_a_credential_of_the_service() {
    let dir = tempfile::tempdir().unwrap();
    let (config, credentials) = (dir.path().join("vitalbridge.toml"), dir.path().join("credentials"));
    let text =
        "[server]\nlisten = '127.0.0.1:0'\n[store]\ndir = 'state'\n[auth]\nsecret_file = 'credential:token.secret'\n";
    fs::write(&config, text).unwrap();
    fs::create_dir(&credentials).unwrap();
    fs::write(credentials.join("token.secret"), "0123456789abcdef0123456789abcdef\n").unwrap();

    let mut command = program();
    command.args(["run", "--config"]).arg(&config).env("CREDENTIALS_DIRECTORY", &credentials);
    let bridge = Bridge::start_command(command);
    let asked = |token: &[u8]| {
        let token = String::from_utf8(token.to_vec()).unwrap();
        let mut stream = std::net::TcpStream::connect(&bridge.address).unwrap();
        let request = format!(
            "GET /api/v1/patients HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
            bridge.address,
            token.trim()
        );
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
        answer.lines().next().unwrap().to_owned()
    };
    let issued = token_of(&config, Some(&credentials));
    assert_eq!(asked(&issued.stdout), "HTTP/1.1 200 OK");
    assert!(!dir.path().join("state/token.secret").exists(), "no second secret is made");

    // Another secret signs nothing that this bridge takes.
    fs::write(credentials.join("token.secret"), "another secret, which is 32 bytes long\n").unwrap();
    assert_eq!(asked(&token_of(&config, Some(&credentials)).stdout), "HTTP/1.1 401 Unauthorized");
    assert_eq!(bridge.stop(), Some(0));
}

#[test]
fn a_credential_that_is_not_there_is_told_with_its_line_and_never_made() {
    let dir = tempfile::tempdir().unwrap();
    let (config, credentials) = (dir.path().join("vitalbridge.toml"), dir.path().join("credentials"));
    fs::write(&config, "[auth]\nsecret_file = 'credential:token.secret'\n").unwrap();
    fs::create_dir(&credentials).unwrap();
    for place in [Some(credentials.as_path()), None] {
        let output = token_of(&config, place);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{told}");
        assert!(told.contains("line 2: ") && told.contains("LoadCredential=token.secret:FILE"), "{told}");
    }
    assert!(!credentials.join("token.secret").exists());
}

#[test]
fn a_credential_of_a_service_that_does_not_run_is_a_warning_for_who_looks_and_an_error_for_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("vitalbridge.toml");
    let credentials = "[auth]\nsecret_file = 'credential:token.secret'\n\
                       [server.tls]\ncertificate = 'credential:tls.crt'\nkey = 'credential:tls.key'\n\
                       [mqtt]\nbroker = 'mqtts://localhost:1'\nusername = 'u'\npassword_file = 'credential:mqtt.password'\n\
                       [mqtt.tls]\nca_file = 'credential:ca'\n";
    let text = format!("[server]\nlisten = '127.0.0.1:0'\n[store]\ndir = 'state'\n{credentials}");
    fs::write(&config, &text).unwrap();
    assert!(!Path::new("/run/credentials/vitalbridge.service").exists(), "this machine runs the service");
    let run = |arguments: &[&str], directory: Option<&Path>| {
        let mut command = program();
        command.args(arguments).arg("--config").arg(&config).env_remove("CREDENTIALS_DIRECTORY").stdin(Stdio::null());
        command.envs(directory.map(|directory| ("CREDENTIALS_DIRECTORY", directory)));
        command.output().unwrap()
    };
    let names = ["token.secret", "tls.crt", "tls.key", "mqtt.password", "ca"];
    let looked = run(&["check", "--json"], None);
    let report: serde_json::Value = serde_json::from_slice(&looked.stdout).unwrap();
    assert_eq!((looked.status.code(), &report["problems"]), (Some(0), &serde_json::json!([])), "{report:#}");
    let warnings = report["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), names.len(), "{report:#}");
    for name in names {
        let told = format!("the credential {name} has not been looked at: it is there while vitalbridge.service runs");
        assert!(warnings.iter().any(|one| one["message"].as_str().unwrap().starts_with(&told)), "{name}: {report:#}");
    }

    let found: serde_json::Value = serde_json::from_slice(&run(&["doctor", "--json"], None).stdout).unwrap();
    let findings = found["findings"].as_array().unwrap();
    let of = |area: &str| findings.iter().filter(|one| one["area"] == area).collect::<Vec<_>>();
    for one in of("configuration").iter().filter(|one| one["check"] != "no_source") {
        assert_eq!((&one["check"], &one["level"]), (&"credential".into(), &"warning".into()), "{found:#}");
        assert!(one["advice"].as_str().unwrap().contains("sudo systemctl start vitalbridge"), "{one}");
    }
    assert_eq!(of("configuration").len(), names.len() + 1, "{found:#}");
    assert_eq!(of("secrets").iter().map(|one| &one["check"]).collect::<Vec<_>>(), ["credential"], "{found:#}");

    // The service itself, and a command beside a running one, know better.
    for (arguments, directory) in [(&["run"][..], None), (&["run"], Some(dir.path())), (&["check"], Some(dir.path()))] {
        let refused = run(arguments, directory);
        let told = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(78), "{arguments:?}: {told}");
        assert!(told.contains("the credential ") && told.contains("cannot be read"), "{arguments:?}: {told}");
    }
    // Another mistake stays one beside them.
    fs::write(&config, format!("{text}[log]\nfilter = '='\n")).unwrap();
    assert_eq!(run(&["check"], None).status.code(), Some(78));
}

#[test]
fn the_access_list_of_a_credential_is_no_open_file_and_a_weak_one_is_not_to_be_deleted() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("vitalbridge.toml");
    let text = "[store]\ndir = 'state'\n[auth]\nsecret_file = 'credential:token.secret'\n";
    fs::write(&config, text).unwrap();
    let secret = dir.path().join("token.secret");
    let found = |text: &str| {
        fs::write(&secret, text).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o440)).unwrap();
        let mut command = program();
        command.args(["doctor", "--json", "--config"]).arg(&config).env("CREDENTIALS_DIRECTORY", dir.path());
        let output = command.stdin(Stdio::null()).output().unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let all = report["findings"].as_array().unwrap().clone();
        all.into_iter().filter(|one| one["area"] == "secrets").collect::<Vec<_>>()
    };
    let good = found("0f6b1c2d3e4a59788796a5b4c3d2e1f0\n");
    assert_eq!(good.iter().map(|one| &one["check"]).collect::<Vec<_>>(), ["good"], "{good:?}");
    let weak = found("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n");
    assert_eq!(weak.iter().map(|one| &one["check"]).collect::<Vec<_>>(), ["monotonous"], "{weak:?}");
    let advice = weak[0]["advice"].as_str().unwrap();
    assert!(!advice.contains("rm ") && advice.contains("credentials.conf"), "{advice}");
}

/// What docs/install.md and docs/operations.md tell a person to type and `tests/package/steps` does not run, with why.
const RUN_BY_NOBODY: &[(&str, &str)] = &[
    ("ssh ", "from another machine"),
    ("scp ", "from another machine"),
    ("sudo apt update && sudo apt full-upgrade", "the network's packages"),
    ("sudo apt install bluez unattended-upgrades", "the network's packages"),
    ("sudo apt install ./vitalbridge_", "the same by apt-get without a question; the file has another name"),
    ("timedatectl ", "needs systemd"),
    ("bluetoothctl list ", "needs a radio"),
    ("sudo vitalbridge scan ", "needs a radio"),
    ("ls /dev/serial/by-id/ ", "needs an adapter"),
    ("sudoedit ", "asks a person"),
    ("sudo openssl enc ", "asks for a password"),
    ("journalctl ", "needs systemd"),
    ("sudo vitalbridge doctor ", "run there with another exit code: much is missing in a chroot"),
];

#[test]
fn each_command_of_the_books_is_run_as_it_stands_by_the_trial_of_the_package_or_named_here() {
    let steps = read("tests/package/steps");
    let mut excepted = std::collections::BTreeSet::new();
    let mut found = 0;
    for book in ["docs/install.md", "docs/operations.md"] {
        let text = read(book);
        for block in text.split("```sh\n").skip(1) {
            for line in block.split("```").next().unwrap().lines().map(str::trim).filter(|line| !line.is_empty()) {
                found += 1;
                let exception = RUN_BY_NOBODY.iter().find(|(begin, _)| line.starts_with(begin));
                excepted.extend(exception.map(|(begin, _)| *begin));
                assert!(
                    exception.is_some() || steps.lines().any(|step| step == line),
                    "{book}: nobody runs `{line}`: put it into tests/package/steps"
                );
            }
        }
    }
    assert!(found > 30, "{found}");
    assert_eq!(excepted.len(), RUN_BY_NOBODY.len(), "an exception for a line that is gone: {excepted:?}");
}

/// What is in single backticks, outside of blocks.
fn inline_code(text: &str) -> Vec<&str> {
    let outside = text.split("```").step_by(2);
    outside.flat_map(|part| part.lines().flat_map(|line| line.split('`').skip(1).step_by(2))).collect()
}

/// What is wrong with a command as it stands for a user who is not root, if it is one.
fn wrong_as_typed(command: &str) -> Option<&'static str> {
    let mut words = command.split_whitespace();
    let (first, second) = (words.next()?, words.next().unwrap_or_default());
    let looks = ["status", "list-units", "is-active", "--failed", "cat", "show"];
    let needs_root = match first {
        "systemctl" => !second.is_empty() && !looks.contains(&second),
        // The configuration is root's and the group's, the state the service's alone.
        "vitalbridge" => {
            ["check", "token", "buffer", "pair", "scan", "doctor", "devices", "support-bundle"].contains(&second)
        }
        "apt" | "apt-get" => !second.is_empty() && second != "list",
        "journalctl" => second.starts_with("--vacuum"),
        "timedatectl" => second.starts_with("set-"),
        "rfkill" => second == "block" || second == "unblock",
        "resolvectl" => return Some("Debian 12 and Raspberry Pi OS have none: getent hosts"),
        "dmesg" | "usermod" | "chmod" | "chown" | "udevadm" | "fuser" | "du" | "certutil" | "rm" | "install"
        | "tar" | "cp" | "mv" | "hwclock" => !second.is_empty(),
        "reboot" => true,
        _ => false,
    };
    if needs_root && command != "vitalbridge token" {
        return Some("a user who is not root may not do this: sudo");
    }
    // The shell of the user looks for the names, before sudo.
    let is_closed = ["/var/lib/vitalbridge/", "/etc/vitalbridge/", "/var/backups/vitalbridge/", "/state/"];
    let globs = first == "sudo"
        && second != "sh"
        && is_closed
            .iter()
            .any(|folder| command.split_whitespace().any(|word| word.starts_with(folder) && word.contains('*')));
    globs.then_some("no user's shell can look for names in there: sudo sh -c '...'")
}

#[test]
fn each_command_of_the_books_and_of_the_doctor_can_be_typed_by_who_is_not_root() {
    for (command, is_wrong) in [
        ("systemctl restart vitalbridge", true),
        ("sudo systemctl restart vitalbridge", false),
        ("systemctl status vitalbridge", false),
        ("vitalbridge check", true),
        ("vitalbridge profile list", false),
        ("sudo rm /var/lib/vitalbridge/tls-*.pem", true),
        ("sudo sh -c 'rm /var/lib/vitalbridge/vitals.db.corrupt-*'", false),
        ("rm -rf x", true),
        ("timedatectl set-ntp true", true),
        ("timedatectl timesync-status", false),
        ("hwclock --systohc", true),
        ("rfkill list", false),
        ("resolvectl query NAME", true),
        ("server.tls", false),
    ] {
        assert_eq!(wrong_as_typed(command).is_some(), is_wrong, "{command}");
    }
    let mut seen = 0;
    let mut judge = |place: &str, command: &str| {
        seen += 1;
        if let Some(reason) = wrong_as_typed(command) {
            panic!("{place}: `{command}`: {reason}");
        }
    };
    for book in ["docs/install.md", "docs/operations.md", "docs/kiosk.md", "docs/doctor.md"] {
        let text = read(book);
        for block in text.split("```sh\n").skip(1) {
            for line in block.split("```").next().unwrap().lines() {
                judge(book, line.trim());
            }
        }
        for code in inline_code(&text) {
            judge(book, code);
        }
    }
    let of_doctor = fs::read_dir(root("src/doctor")).unwrap().map(|entry| entry.unwrap().path());
    for path in of_doctor.chain([root("src/sources/serial/console.rs")]) {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        let code = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        // A string that goes on in the next line begins there after its spaces.
        let joined = code.split("\\\n").map(str::trim_start).collect::<String>();
        for code in inline_code(&joined) {
            judge(path.to_str().unwrap(), code);
        }
    }
    assert!(seen > 100, "{seen}");
}

#[test]
fn the_book_of_the_doctor_names_each_warning_and_error_and_no_other() {
    let mut given = std::collections::BTreeSet::new();
    let finding = regex::Regex::new(
        r#"(?:Finding::(?:warning|error)\(\s*(?:Area::\w+|AREA|area),|\b(?:error|warning)\()\s*"([a-z_]+)""#,
    );
    let tested = regex::Regex::new(r#""([a-z_]+)",\s*Level::(?:Warning|Error)"#);
    let (finding, tested) = (finding.unwrap(), tested.unwrap());
    for entry in fs::read_dir(root("src/doctor")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        for pattern in [&finding, &tested] {
            given.extend(pattern.captures_iter(&text).map(|found| found[1].to_owned()));
        }
    }
    let book = read("docs/doctor.md");
    let rows = book.lines().filter(|line| line.starts_with("| ") && line.split(" | ").count() == 3);
    let told: std::collections::BTreeSet<String> = rows
        .filter(|row| !row.contains("what is looked at"))
        .flat_map(|row| {
            inline_code(row.rsplit(" | ").next().unwrap()).into_iter().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    assert!(given.len() > 40, "{given:?}");
    assert_eq!(told, given, "docs/doctor.md, and what src/doctor gives");
}

#[test]
fn each_finding_that_the_doctor_can_have_stands_in_a_test_of_its_file() {
    let given = regex::Regex::new(
        r#"(?:Finding::\w+\(\s*(?:Area::\w+|AREA|area),|\b(?:error|warning)\(|\(Area::\w+,)\s*"([a-z_]+)""#,
    );
    let (given, mut found) = (given.unwrap(), 0);
    for entry in fs::read_dir(root("src/doctor")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let (code, tests) = text.split_once("#[cfg(test)]\nmod tests {").unwrap_or((&text, ""));
        for check in given.captures_iter(code).map(|captures| captures[1].to_owned()) {
            found += 1;
            assert!(tests.contains(&format!("\"{check}\"")), "{}: no test has the finding `{check}`", path.display());
        }
    }
    assert!(found > 100, "{found}");
}

#[test]
fn each_alert_has_a_row_in_the_book_of_operations() {
    let book = read("docs/operations.md");
    let rules: toml::Table = toml::from_str(&read("src/alerts/default_rules.toml")).unwrap();
    let rules: Vec<&str> = rules["rule"].as_array().unwrap().iter().map(|rule| rule["id"].as_str().unwrap()).collect();
    assert!(rules.len() > 20, "{rules:?}");
    let conditions = vitalbridge::alerts::BridgeCondition::ALL.iter().map(|condition| condition.name());
    for id in rules.into_iter().chain(conditions) {
        let row = book
            .lines()
            .find(|line| line.starts_with("| ") && line.split(" | ").next().unwrap().contains(&format!("`{id}`")));
        let row = row.unwrap_or_else(|| panic!("docs/operations.md has no row for the alert {id}"));
        assert!(row.split(" | ").nth(2).is_some_and(|todo| todo.len() > 20), "{id}: nothing to do in {row}");
    }
}
