//! The panel's script without a panel: the sign-in, what the compositor is started with, and a clock that is set.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::bridge::{eventually, program};

/// A folder with programs that go before the machine's own, and those of the unit.
struct Panel {
    dir: tempfile::TempDir,
}

impl Panel {
    fn new() -> Self {
        let panel = Self { dir: tempfile::tempdir().unwrap() };
        for folder in ["bin", "runtime", "home"] {
            fs::create_dir(panel.path(folder)).unwrap();
        }
        // The panel's user is not on this machine, and nobody wants to wait.
        panel.says("chown", "true");
        panel
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn says(&self, program: &str, script: &str) {
        let file = self.path("bin").join(program);
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn command(&self, word: &str) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/vitalbridge-kiosk");
        let mut command = Command::new("sh");
        let path = std::env::var("PATH").unwrap();
        command.arg(script).arg(word).env("PATH", format!("{}:{path}", self.path("bin").display()));
        command.env("RUNTIME_DIRECTORY", self.path("runtime")).env("STATE_DIRECTORY", self.path("home"));
        command.env_remove("XDG_RUNTIME_DIR").env("HOME", "/").env("TRIED", self.path("tried")).stdin(Stdio::null());
        command
    }

    fn signed_in(&self) -> Output {
        self.command("sign-in").output().unwrap()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }
}

#[test]
fn the_panel_tries_its_sign_in_again_until_the_bridge_gives_a_code() {
    let panel = Panel::new();
    panel.says("sleep", "true");
    let link = "echo http://127.0.0.1:8080/#code=0123abcd; echo The code works once";
    panel.says("vitalbridge", &format!("echo $@ >>$TRIED; [ $(wc -l <$TRIED) -ge 3 ] || exit 78; {link}"));
    let output = panel.signed_in();
    assert!(output.status.success(), "{output:?}");
    let asked = panel.read("tried");
    assert_eq!(asked.lines().collect::<Vec<_>>(), ["token code --role nurse --user kiosk"; 3]);
    assert_eq!(panel.read("runtime/address"), "http://127.0.0.1:8080/#code=0123abcd&view=/\n");
}

#[test]
fn a_bridge_that_gives_no_code_is_an_error_and_no_page_without_a_sign_in() {
    for (script, tries) in [("exit 78", 10), ("echo 0123abcd; echo Enter it on the page", 1)] {
        let panel = Panel::new();
        panel.says("sleep", "true");
        panel.says("vitalbridge", &format!("echo x >>$TRIED; {script}"));
        let output = panel.signed_in();
        assert_eq!(output.status.code(), Some(1), "{script}: {output:?}");
        assert_eq!(panel.read("tried").lines().count(), tries, "{script}");
        assert!(!panel.path("runtime/address").exists(), "{script}");
    }
}

#[test]
fn the_link_of_the_program_is_one_that_the_panel_understands() {
    let panel = Panel::new();
    let config = panel.path("vitalbridge.toml");
    fs::write(&config, "[server]\nlisten = '127.0.0.1:8443'\n[server.tls]\n[store]\ndir = 'state'\n").unwrap();
    fs::create_dir(panel.path("state")).unwrap();
    fs::write(panel.path("state/token.secret"), "0f6b1c2d3e4a59788796a5b4c3d2e1f0\n").unwrap();
    let binary = program().get_program().to_str().unwrap().to_owned();
    panel.says("vitalbridge", &format!("exec {binary} \"$@\" --config {}", config.display()));
    let mut command = panel.command("sign-in");
    let output = command.env("KIOSK_ADDRESS", "https://localhost:8443/").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let address = panel.read("runtime/address");
    let code = address.strip_prefix("https://localhost:8443/#code=").unwrap().strip_suffix("&view=/\n").unwrap();
    assert!(code.len() == 32 && code.bytes().all(|byte| byte.is_ascii_hexdigit()), "{address}");
}

#[test]
fn the_compositor_has_a_folder_for_its_socket_and_the_browser_a_home_where_the_unit_may_write() {
    let panel = Panel::new();
    fs::write(panel.path("runtime/address"), "http://127.0.0.1:8080/#code=1&view=/\n").unwrap();
    panel.says("cage", "env >$TRIED; echo \"$@\" >>$TRIED");
    // Not with what it says: who watches the clock has that open until the compositor, which has ended, is waited for.
    let mut command = panel.command("show");
    let status = command.env("KIOSK_LOOK", "0.05").stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(status.success(), "{status:?}");
    let told = panel.read("tried");
    for line in [
        format!("XDG_RUNTIME_DIR={}", panel.path("runtime").display()),
        format!("HOME={}", panel.path("home").display()),
    ] {
        assert!(told.lines().any(|one| one == line), "{line}: {told}");
    }
    let arguments = told.lines().find(|line| line.starts_with("-s -- chromium --kiosk")).unwrap();
    assert!(arguments.ends_with("http://127.0.0.1:8080/#code=1&view=/"), "{arguments}");
    assert!(!panel.path("runtime/address").exists(), "the code stays where somebody may read it");
    // Those two folders are the unit's own; everything else is closed to it.
    let unit = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/vitalbridge-kiosk.service"));
    let unit = unit.unwrap();
    for line in ["RuntimeDirectory=vitalbridge-kiosk", "StateDirectory=vitalbridge-kiosk", "ProtectHome=yes"] {
        assert!(unit.lines().any(|one| one == line), "{line}");
    }
}

#[tokio::test]
async fn a_clock_that_is_set_late_ends_the_panel_so_that_it_signs_in_anew() {
    let panel = Panel::new();
    fs::write(panel.path("runtime/address"), "http://127.0.0.1:8080/\n").unwrap();
    // A second more or less is none.
    panel.says("date", "echo $(($(cat $TRIED.now 2>/dev/null || echo 0) + $(cut -d. -f1 /proc/uptime)))");
    panel.says("cage", "echo $$ >$TRIED; exec sleep 600");
    let mut shown = panel.command("show").env("KIOSK_LOOK", "0.1").stderr(Stdio::piped()).spawn().unwrap();
    let started = || panel.path("tried").exists().then_some(());
    eventually("the compositor runs", Duration::from_mins(1), started).await;
    assert_eq!(shown.try_wait().unwrap(), None, "it ended though nobody set the clock");
    // Written whole under another name: it is read meanwhile.
    fs::write(panel.path("tried.new"), "50000").unwrap();
    fs::rename(panel.path("tried.new"), panel.path("tried.now")).unwrap();
    let status = shown.wait().unwrap();
    assert!(!status.success());
    let mut said = String::new();
    std::io::Read::read_to_string(&mut shown.stderr.take().unwrap(), &mut said).unwrap();
    assert!(said.contains("the clock was set by 50000 s: signing in anew"), "{said}");
}
