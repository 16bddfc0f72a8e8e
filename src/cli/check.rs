//! `vitalbridge check`: every problem of a configuration at once; then what is in force.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{CommandError, say};
use crate::alerts::EffectiveLimit;
use crate::clock::Clock;
use crate::config::{Config, ConfigError, Place};
use crate::document::Problems;
use crate::vitals::Decimal;

#[derive(Debug, Args)]
#[command(after_help = "Example: vitalbridge check --config vitalbridge.toml")]
pub(super) struct CheckArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/vitalbridge/vitalbridge.toml")]
    config: PathBuf,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &CheckArgs) -> Result<(), CommandError> {
    let (loaded, devices) = Config::load_with_devices(&args.config, &Place::default());
    let broken = devices.problems();
    let warnings = match &loaded {
        Ok(config) => config.warnings.clone(),
        Err(ConfigError::Problems { warnings, .. }) => warnings.clone(),
        Err(ConfigError::Unreadable { .. }) => Problems::default(),
    };
    if args.json {
        let problems: Vec<_> = match &loaded {
            Ok(_) => Vec::new(),
            Err(ConfigError::Unreadable { error, .. }) => vec![json!({"line": 0, "message": error.to_string()})],
            Err(ConfigError::Problems { problems, .. }) => {
                let one =
                    |problem: &crate::document::Problem| json!({"line": problem.line, "message": problem.message});
                problems.as_slice().iter().map(one).collect()
            }
        };
        let ok = loaded.is_ok() && broken.is_empty();
        let replaced: Vec<_> = devices.replacing().map(|own| json!({"id": own.id, "file": own.file})).collect();
        let warnings: Vec<_> =
            warnings.as_slice().iter().map(|one| json!({"line": one.line, "message": one.message})).collect();
        let report = json!({
            "file": args.config, "ok": ok, "problems": problems, "warnings": warnings, "profiles": broken,
            "replaced": replaced,
        });
        say(&report.to_string())?;
        loaded?;
        return refuse(&broken);
    }
    if loaded.is_err() || !broken.is_empty() {
        for warning in warnings.as_slice() {
            say(&format!("{}: warning, {warning}", args.config.display()))?;
        }
    }
    let config = match loaded {
        Ok(config) => config,
        Err(error) if broken.is_empty() => return Err(error.into()),
        Err(error) => return Err(CommandError::Refused(format!("{error}\nand the profiles:\n{}", broken.join("\n")))),
    };
    refuse(&broken)?;
    let now = Clock::System.now().wall;
    say(&format!("{}: no problem found", args.config.display()))?;
    for warning in warnings.as_slice() {
        say(&format!("  warning, {warning}"))?;
    }
    say(&format!("  bridge {} at {}, {} sources", config.bridge, config.site, config.sources.len()))?;
    for own in devices.own() {
        let replaces =
            if devices.replacing().any(|other| other.id == own.id) { ", replaces the built-in one" } else { "" };
        say(&format!("  profile {} ({}){replaces}", own.id, own.file.display()))?;
    }
    for patient in &config.patients {
        say(&format!("  patient {} ({}), bed {}, ward {}", patient.id, patient.name, patient.bed, patient.ward))?;
        for limit in config.rules.limits(&patient.id, now) {
            say(&format!("    {}", line(&limit)))?;
        }
    }
    Ok(())
}

/// Broken profiles of the directory, all at once.
fn refuse(broken: &[String]) -> Result<(), CommandError> {
    if broken.is_empty() {
        return Ok(());
    }
    Err(CommandError::Refused(format!("the profiles have {} problems:\n{}", broken.len(), broken.join("\n"))))
}

/// One limit in a line: what, how urgent, after how long, and who set it.
fn line(limit: &EffectiveLimit) -> String {
    let metrics = limit.metrics.join(" or ");
    let delay = Decimal::new(i64::try_from(limit.delay_ms).unwrap_or(i64::MAX), -3).map_or(String::new(), |seconds| {
        format!(" for {} s", seconds.to_string().trim_end_matches('0').trim_end_matches('.'))
    });
    let set_by = match (&limit.off, &limit.decision) {
        (Some(off), _) => format!("ALARM OFF by {}: {}", off.by, off.reason),
        (None, Some(decision)) => format!("{}, by {}: {}", limit.source, decision.by, decision.reason),
        (None, None) => limit.source.to_string(),
    };
    let what = format!("{metrics} {}", limit.text);
    let delay = if limit.delay_ms == 0 { "" } else { &delay };
    format!("{}: {}{delay}, {} [{set_by}]", limit.rule, what.trim_start(), limit.priority)
}
