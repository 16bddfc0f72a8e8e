//! `vitalbridge profile`: lists, shows and checks device profiles.

use std::io::Write;
use std::sync::Arc;

use anyhow::bail;

use super::decode::read_profile;
use crate::decode::self_test;
use crate::profile::{Profile, built_in_ids, built_in_text, nearest_ids};

/// List, show and check device profiles
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub action: Action,
}

/// What to do with profiles.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Action {
    /// List the built-in profiles
    List,
    /// Print the TOML of a built-in profile
    Show {
        /// Its id
        id: String,
    },
    /// Check profiles and run the tests they carry: as they are, byte by byte, after noise, and with each byte lost
    Check {
        /// Profile files; without any, the built-in profiles
        files: Vec<String>,
    },
}

/// Does it: the result to `out`, problems to `notes`.
///
/// # Errors
/// An unknown id; a profile with problems, after all of them have been written to `notes`.
pub fn run(args: &Args, out: &mut dyn Write, notes: &mut dyn Write) -> anyhow::Result<()> {
    match &args.action {
        Action::List => list(out),
        Action::Show { id } => show(id, out),
        Action::Check { files } => check(files, out, notes),
    }
}

fn list(out: &mut dyn Write) -> anyhow::Result<()> {
    for id in built_in_ids() {
        let profile = super::decode::find_profile(id)?;
        let metrics: Vec<&str> = self_test::metrics(&profile).iter().map(|metric| metric.name()).collect();
        let line = profile.serial().map_or_else(
            || "BLE".to_owned(),
            |serial| serial.settings.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        );
        writeln!(out, "{id}\n    {}\n    {line}; {}", profile.name(), metrics.join(", "))?;
    }
    Ok(())
}

fn show(id: &str, out: &mut dyn Write) -> anyhow::Result<()> {
    match built_in_text(id) {
        Some(text) => Ok(out.write_all(text.as_bytes())?),
        None => bail!("there is no profile `{id}`; the nearest are {}", nearest_ids(id).join(", ")),
    }
}

fn check(files: &[String], out: &mut dyn Write, notes: &mut dyn Write) -> anyhow::Result<()> {
    let built_in: Vec<String> = built_in_ids().map(str::to_owned).collect();
    let (names, is_built_in) = if files.is_empty() { (&built_in[..], true) } else { (files, false) };
    let mut bad = 0_usize;
    for name in names {
        let text =
            if is_built_in { Ok(built_in_text(name).unwrap_or_default().to_owned()) } else { read_profile(name) };
        let problems = text.map_or_else(|error| vec![format!("{name}: {error:#}")], |text| problems_of(name, &text));
        if problems.is_empty() {
            writeln!(out, "{name}: ok")?;
        } else {
            bad += 1;
            for problem in problems {
                writeln!(notes, "{problem}")?;
            }
        }
    }
    if bad > 0 {
        bail!("{bad} of {} profiles have problems", names.len());
    }
    Ok(())
}

/// Everything that is wrong with a profile: first with what it says, then, if that is sound, with what it does.
fn problems_of(name: &str, text: &str) -> Vec<String> {
    let place = |line: usize, message: &str| {
        if line == 0 { format!("{name}: {message}") } else { format!("{name}:{line}: {message}") }
    };
    match Profile::parse(text) {
        Ok(profile) => {
            self_test::run(&Arc::new(profile)).iter().map(|failure| place(failure.line, &failure.message)).collect()
        }
        Err(problems) => problems.as_slice().iter().map(|problem| place(problem.line, &problem.message)).collect(),
    }
}
