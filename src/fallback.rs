//! The local fallback: a command or an output line that is on while alerts stand which nobody is shown.
//!
//! One action at a time, each with a time limit; what fails is logged, counted, told and tried again.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::backoff::Backoff;
use crate::event::Priority;
use crate::ids::AlertId;
use crate::metrics::Metrics;

/// How long an action may take unless the configuration says otherwise.
pub const DEFAULT_LIMIT: Duration = Duration::from_secs(10);

/// A call names this many alerts; `VITALBRIDGE_COUNT` tells of more.
pub const MAX_NAMED: usize = 32;

/// Waits between two tries of what failed, the shortest and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What is there to make people look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A program with its arguments, without a shell. It is told by its environment what to do.
    Command {
        /// The program, by its whole path, and its arguments.
        argv: Vec<String>,
        /// It is killed after this time.
        limit: Duration,
    },
    /// A file that switches an output of the machine, such as `/sys/class/leds/<name>/brightness`.
    Line {
        /// Which file. It has to be there.
        path: PathBuf,
        /// Written to switch it on.
        on: String,
        /// Written to switch it off.
        off: String,
    },
}

/// What the fallback stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Rises whenever an alert has joined: a command is then run again.
    pub number: u64,
    /// The highest of them.
    pub priority: Priority,
    /// How many.
    pub count: usize,
    /// Which; at most [`MAX_NAMED`].
    pub alerts: Vec<AlertId>,
    /// What the most urgent of them says.
    pub message: String,
}

/// What the fallback should be doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Wanted {
    /// Not known yet: alerts of an earlier run may still be shown in time, and what is on stays on.
    #[default]
    Undecided,
    /// Nothing.
    Off,
    /// Calling.
    On(Call),
}

/// Why an action did not work.
#[derive(Debug, thiserror::Error)]
pub enum FallbackError {
    /// The program cannot be started.
    #[error("cannot start {program}: {error}")]
    NotStarted {
        /// Which.
        program: String,
        /// Why.
        error: std::io::Error,
    },
    /// The program failed.
    #[error("{program} ended with {status}")]
    Failed {
        /// Which.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// It took too long.
    #[error("it took longer than {0:?}")]
    TooSlow(Duration),
    /// The file of the line cannot be written.
    #[error("cannot write {}: {error}", path.display())]
    Line {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

/// Does what is wanted until `stop`, and tells whether the last try failed; `None` before the first. At its start, once it is known that nothing
/// is wanted, it switches off what an earlier run may have left on: what does not work is known before it is needed.
pub async fn run(
    action: Action,
    mut wanted: watch::Receiver<Wanted>,
    failed: watch::Sender<Option<bool>>,
    metrics: Arc<Metrics>,
    seed: u64,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::new(RETRY.0, RETRY.1, seed);
    let mut done = Wanted::Undecided;
    let mut writer = LineWriter::default();
    loop {
        let next = wanted.borrow_and_update().clone();
        if next == Wanted::Undecided || is_done(&action, &done, &next) {
            tokio::select! {
                // What is on stays on: the daemon's end does not make an alarm undone.
                () = stop.cancelled() => return,
                changed = wanted.changed() => if changed.is_err() { return },
            }
            continue;
        }
        metrics.fallback_runs_total.add_one();
        let result = tokio::select! {
            () = stop.cancelled() => return,
            result = act(&action, &next, &mut writer) => result,
        };
        // Nobody reads this any more only when the daemon ends.
        let is_failure = Some(result.is_err());
        failed.send_if_modified(|known| std::mem::replace(known, is_failure) != is_failure);
        match result {
            Ok(()) => {
                info!(on = matches!(next, Wanted::On(_)), "the local fallback was switched");
                backoff.reset();
                done = next;
            }
            Err(error) => {
                metrics.fallback_failed_total.add_one();
                error!(%error, on = matches!(next, Wanted::On(_)), "the local fallback does not work; it is tried again");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(backoff.next_delay()) => {}
                }
            }
        }
    }
}

/// True if nothing has to be done any more. A line that is on stays on when more alerts join; a command is told of them.
fn is_done(action: &Action, done: &Wanted, next: &Wanted) -> bool {
    match (done, next) {
        (Wanted::Off, Wanted::Off) => true,
        (Wanted::On(before), Wanted::On(now)) => matches!(action, Action::Line { .. }) || before.number == now.number,
        _ => false,
    }
}

async fn act(action: &Action, wanted: &Wanted, writer: &mut LineWriter) -> Result<(), FallbackError> {
    match action {
        Action::Command { argv, limit } => run_command(argv, *limit, wanted).await,
        Action::Line { path, on, off } => {
            let text = if matches!(wanted, Wanted::On(_)) { on } else { off };
            writer.write(path, text, DEFAULT_LIMIT).await
        }
    }
}

/// Writes a line in a thread of its own: it may hang on a bus, and nobody else waits for it.
#[derive(Debug, Default)]
struct LineWriter {
    /// A write that took longer than it may. It cannot be ended from outside, and keeps its thread.
    hung: Option<JoinHandle<std::io::Result<()>>>,
}

impl LineWriter {
    /// Never two at once: beside one that hangs each further try would cost a thread, and could be overtaken by it.
    async fn write(&mut self, path: &Path, text: &str, limit: Duration) -> Result<(), FallbackError> {
        if let Some(hung) = &mut self.hung {
            // How it ended is of no interest any more: what is wanted now is written after it.
            let _ = tokio::time::timeout(limit, hung).await.map_err(|_| FallbackError::TooSlow(limit))?;
            self.hung = None;
        }
        let (file, text) = (path.to_owned(), text.to_owned());
        let mut writing = tokio::task::spawn_blocking(move || write_line(&file, &text));
        let failed = |error| FallbackError::Line { path: path.to_owned(), error };
        match tokio::time::timeout(limit, &mut writing).await {
            Ok(Ok(result)) => result.map_err(failed),
            Ok(Err(error)) => Err(failed(std::io::Error::other(error))),
            Err(_) => {
                self.hung = Some(writing);
                Err(FallbackError::TooSlow(limit))
            }
        }
    }
}

/// The file is never made: a path that is not there is a line that does not exist.
fn write_line(path: &Path, text: &str) -> std::io::Result<()> {
    std::fs::OpenOptions::new().write(true).truncate(true).open(path)?.write_all(text.as_bytes())
}

/// What the program is told.
fn environment(wanted: &Wanted) -> Vec<(&'static str, OsString)> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    let mut variables = vec![("PATH", path)];
    match wanted {
        Wanted::On(Call { priority, count, alerts, message, .. }) => {
            let ids = alerts.iter().take(MAX_NAMED).map(ToString::to_string).collect::<Vec<_>>().join(" ");
            variables.extend([
                ("VITALBRIDGE_STATE", "on".into()),
                ("VITALBRIDGE_PRIORITY", priority.name().into()),
                ("VITALBRIDGE_COUNT", count.to_string().into()),
                ("VITALBRIDGE_ALERTS", ids.into()),
                // A zero byte cannot stand in an environment.
                ("VITALBRIDGE_MESSAGE", message.replace('\0', " ").into()),
            ]);
        }
        Wanted::Off | Wanted::Undecided => variables.push(("VITALBRIDGE_STATE", "off".into())),
    }
    variables
}

async fn run_command(argv: &[String], limit: Duration, wanted: &Wanted) -> Result<(), FallbackError> {
    let Some((program, arguments)) = argv.split_first() else { return Ok(()) };
    let mut child = Command::new(program)
        .args(arguments)
        // Neither the daemon's secrets nor its socket to systemd are the program's business.
        .env_clear()
        .envs(environment(wanted))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        // A group of its own, so that what it started ends with it.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| FallbackError::NotStarted { program: program.clone(), error })?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    match tokio::time::timeout(limit, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(FallbackError::Failed { program: program.clone(), status }),
        Ok(Err(error)) => Err(FallbackError::NotStarted { program: program.clone(), error }),
        Err(_) => {
            // It may have ended in this moment; then there is nobody to kill.
            let _ = group.map(|group| kill_process_group(group, Signal::KILL));
            let _ = child.wait().await;
            Err(FallbackError::TooSlow(limit))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(number: u64) -> Wanted {
        Wanted::On(Call {
            number,
            priority: Priority::High,
            count: 40,
            alerts: vec![AlertId(uuid::Uuid::from_u128(1)), AlertId(uuid::Uuid::from_u128(2))],
            message: "Monitor 2: SpO2 70 %; rm -rf $HOME\0".to_owned(),
        })
    }

    struct Running {
        wanted: watch::Sender<Wanted>,
        failed: watch::Receiver<Option<bool>>,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    fn start(action: Action) -> Running {
        let (wanted, receiver) = watch::channel(Wanted::Undecided);
        let (told, failed) = watch::channel(None);
        let (metrics, stop) = (Arc::new(Metrics::default()), CancellationToken::new());
        #[expect(clippy::disallowed_methods, reason = "a test owns the tasks that it makes")]
        let task = tokio::spawn(run(action, receiver, told, Arc::clone(&metrics), 1, stop.clone()));
        Running { wanted, failed, metrics, stop, task }
    }

    /// Waits until a file has this text, for half a minute.
    async fn until_file(path: &Path, accept: impl Fn(&str) -> bool) -> String {
        for _ in 0..3000 {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            if accept(&text) {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{}: {:?}", path.display(), std::fs::read_to_string(path));
    }

    fn script(dir: &Path, text: &str) -> Vec<String> {
        let path = dir.join("alarm.sh");
        std::fs::write(&path, text).unwrap();
        vec!["/bin/sh".to_owned(), path.to_str().unwrap().to_owned(), dir.to_str().unwrap().to_owned()]
    }

    #[tokio::test]
    async fn a_command_is_told_by_its_environment_when_it_is_on_and_when_it_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let text = "printf '%s|' \"$VITALBRIDGE_STATE\" \"$VITALBRIDGE_PRIORITY\" \"$VITALBRIDGE_COUNT\" \
            \"$VITALBRIDGE_ALERTS\" \"$VITALBRIDGE_MESSAGE\" \"$HOME\" >>\"$1/log\"; echo >>\"$1/log\"\n";
        let running = start(Action::Command { argv: script(dir.path(), text), limit: DEFAULT_LIMIT });
        running.wanted.send_replace(Wanted::Off);
        until_file(&log, |text| text == "off||||||\n").await;
        running.wanted.send_replace(call(1));
        until_file(&log, |text| text.lines().count() == 2).await;
        // The same call is not made twice; one with another alert is.
        running.wanted.send_replace(call(1));
        running.wanted.send_replace(call(2));
        until_file(&log, |text| text.lines().count() == 3).await;
        running.wanted.send_replace(Wanted::Off);
        let all = until_file(&log, |text| text.lines().count() == 4).await;
        let ids = "00000000-0000-0000-0000-000000000001 00000000-0000-0000-0000-000000000002";
        let on = format!("on|high|40|{ids}|Monitor 2: SpO2 70 %; rm -rf $HOME ||");
        assert_eq!(all.lines().collect::<Vec<_>>(), ["off||||||", on.as_str(), on.as_str(), "off||||||"]);
        assert_eq!((*running.failed.borrow(), running.metrics.fallback_runs_total.get()), (Some(false), 4));
    }

    #[tokio::test]
    async fn while_it_is_not_decided_nothing_is_switched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("line");
        std::fs::write(&path, "1").unwrap();
        let action = Action::Line { path: path.clone(), on: "1".to_owned(), off: "0".to_owned() };
        let running = start(action);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(
            (std::fs::read_to_string(&path).unwrap(), running.metrics.fallback_runs_total.get()),
            ("1".into(), 0)
        );
        running.wanted.send_replace(Wanted::Off);
        until_file(&path, |text| text == "0").await;
        running.wanted.send_replace(call(1));
        until_file(&path, |text| text == "1").await;
        running.stop.cancel();
        running.task.await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1", "the end of the daemon ends no alarm");
    }

    #[tokio::test]
    async fn what_fails_is_told_and_tried_until_it_works() {
        let dir = tempfile::tempdir().unwrap();
        let (missing, line) = (dir.path().join("gone"), dir.path().join("gone/line"));
        let mut running = start(Action::Line { path: line.clone(), on: "on\n".to_owned(), off: "off\n".to_owned() });
        running.wanted.send_replace(call(1));
        running.failed.wait_for(|failed| *failed == Some(true)).await.unwrap();
        std::fs::create_dir(&missing).unwrap();
        std::fs::write(&line, "").unwrap();
        running.failed.wait_for(|failed| *failed == Some(false)).await.unwrap();
        assert_eq!(std::fs::read_to_string(&line).unwrap(), "on\n");
        assert!(running.metrics.fallback_failed_total.get() > 0);
    }

    #[tokio::test]
    async fn beside_a_write_that_hangs_no_other_one_is_begun() {
        let dir = tempfile::tempdir().unwrap();
        let line = dir.path().join("line");
        // Opening a pipe that nobody reads hangs, as a line on a broken bus does.
        assert!(std::process::Command::new("mkfifo").arg(&line).status().unwrap().success());
        let (mut writer, limit) = (LineWriter::default(), Duration::from_millis(200));
        for text in ["a", "b", "c"] {
            let tried = writer.write(&line, text, limit).await;
            assert!(matches!(tried, Err(FallbackError::TooSlow(_))), "{tried:?}");
        }
        let read = || {
            let line = line.clone();
            tokio::task::spawn_blocking(move || std::fs::read_to_string(line).unwrap())
        };
        assert_eq!(read().await.unwrap(), "a", "only the first try has begun to write");
        let (written, reads) = tokio::join!(writer.write(&line, "d", DEFAULT_LIMIT), read());
        assert_eq!((written.unwrap(), reads.unwrap().as_str()), ((), "d"), "it works again, with what is wanted now");
    }

    #[tokio::test]
    async fn a_command_that_fails_hangs_or_is_not_there_is_a_failure_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let hang = script(dir.path(), "sleep 600 &\necho $! >\"$1/pid\"\nwait\n");
        let slow = run_command(&hang, Duration::from_millis(500), &call(1)).await;
        assert!(matches!(slow, Err(FallbackError::TooSlow(_))), "{slow:?}");
        let child = until_file(&pid, |text| !text.is_empty()).await;
        let process = PathBuf::from(format!("/proc/{}/stat", child.trim()));
        // A killed process stays as a zombie until somebody collects it.
        until_file(&process, |stat| stat.is_empty() || stat.contains(") Z ")).await;
        for (argv, expected) in [
            (vec!["/bin/false".to_owned()], "/bin/false ended with exit status: 1"),
            (vec!["/nowhere/alarm".to_owned()], "cannot start /nowhere/alarm: No such file or directory (os error 2)"),
        ] {
            assert_eq!(run_command(&argv, DEFAULT_LIMIT, &call(1)).await.unwrap_err().to_string(), expected);
        }
    }
}
