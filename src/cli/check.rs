//! `vitalbridge check`: every problem of a configuration at once; then what is in force.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value as Json, json};

use super::{CommandError, say};
use crate::alerts::{Decision, EffectiveLimit};
use crate::clock::Clock;
use crate::config::{Config, ConfigError, Place};
use crate::derive::live::News2Settings;
use crate::document::Problems;
use crate::ids::PatientId;
use crate::patient::Patient;
use crate::server::tls::{self, Identity};
use crate::store::{self, StoreError};
use crate::vitals::{Decimal, Spo2Scale};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples: vitalbridge check --config vitalbridge.toml\n          vitalbridge check --patient P-0001 --json"
)]
pub(super) struct CheckArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/vitalbridge/vitalbridge.toml")]
    config: PathBuf,
    /// Show the limits of this patient alone.
    #[arg(long, value_name = "ID")]
    patient: Option<PatientId>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &CheckArgs) -> Result<(), CommandError> {
    let (loaded, devices) = Config::look(&args.config, &Place::default());
    let broken = devices.problems();
    // A package is asked by this whether its program would start: an older one does not with a newer database.
    let newer = loaded.as_ref().ok().and_then(|config| match store::refuse_newer(&config.state_dir) {
        Err(newer @ StoreError::Newer { .. }) => Some(newer.to_string()),
        _ => None,
    });
    let too_new = || newer.clone().map_or(Ok(()), |newer| Err(CommandError::Refused(newer)));
    let warnings = match &loaded {
        Ok(config) => config.warnings.clone(),
        Err(ConfigError::Problems { warnings, .. }) => warnings.clone(),
        Err(ConfigError::Unreadable { .. }) => Problems::default(),
    };
    if args.json {
        let mut problems: Vec<_> = match &loaded {
            Ok(_) => Vec::new(),
            Err(ConfigError::Unreadable { error, .. }) => vec![json!({"line": 0, "message": error.to_string()})],
            Err(ConfigError::Problems { problems, .. }) => {
                let one =
                    |problem: &crate::document::Problem| json!({"line": problem.line, "message": problem.message});
                problems.as_slice().iter().map(one).collect()
            }
        };
        problems.extend(newer.iter().map(|newer| json!({"line": 0, "message": newer})));
        let ok = loaded.is_ok() && broken.is_empty() && newer.is_none();
        let replaced: Vec<_> = devices.replacing().map(|own| json!({"id": own.id, "file": own.file})).collect();
        let warnings: Vec<_> =
            warnings.as_slice().iter().map(|one| json!({"line": one.line, "message": one.message})).collect();
        let patients = loaded.as_ref().map_or_else(|_| Ok(Vec::new()), |config| limits_of(config, args));
        let report = json!({
            "file": args.config, "ok": ok, "problems": problems, "warnings": warnings, "profiles": broken,
            "replaced": replaced, "patients": patients.as_deref().unwrap_or_default(),
            "tls": loaded.as_ref().ok().and_then(tls_json),
        });
        say(&report.to_string())?;
        loaded?;
        patients?;
        too_new()?;
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
    too_new()?;
    refuse(&broken)?;
    let shown = wanted(&config, args)?;
    let now = Clock::System.now().wall;
    say(&format!("{}: no problem found", args.config.display()))?;
    for warning in warnings.as_slice() {
        say(&format!("  warning, {warning}"))?;
    }
    say(&format!("  bridge {} at {}, {} sources", config.bridge, config.site, config.sources.len()))?;
    say(&format!("  {}", tls_line(&config)))?;
    for own in devices.own() {
        let replaces =
            if devices.replacing().any(|other| other.id == own.id) { ", replaces the built-in one" } else { "" };
        say(&format!("  profile {} ({}){replaces}", own.id, own.file.display()))?;
    }
    for patient in shown {
        say(&format!("  patient {} ({}), bed {}, ward {}", patient.id, patient.name, patient.bed, patient.ward))?;
        say(&format!("    {}", news2(config.news2.get(&patient.id))))?;
        for limit in config.rules.limits(&patient.id, now) {
            say(&format!("    {}", line(&limit, config.rules_file.as_deref())))?;
        }
    }
    Ok(())
}

/// How dashboards connect, and by which certificate they know the bridge.
fn tls_line(config: &Config) -> String {
    let server = &config.server;
    let Some(tls) = &server.tls else { return format!("http on {}, without TLS", server.listen) };
    let certificate = match &tls.identity {
        Identity::Files { certificate, .. } => certificate.display().to_string(),
        Identity::SelfSigned { .. } => "self-signed".to_owned(),
    };
    let fingerprint = match tls::fingerprint(tls, &config.state_dir) {
        Ok(Some(fingerprint)) => format!("SHA-256 {fingerprint}"),
        Ok(None) => "made at the first start".to_owned(),
        Err(error) => error.to_string(),
    };
    let clients = tls.clients.as_ref().map_or_else(String::new, |clients| {
        let need = if clients.required { "required" } else { "optional" };
        format!(", certificates of clients {need}")
    });
    format!("https on {}, certificate {certificate} ({fingerprint}){clients}", server.listen)
}

/// The same for a program; `null` without TLS.
fn tls_json(config: &Config) -> Option<Json> {
    let tls = config.server.tls.as_ref()?;
    let fingerprint = tls::fingerprint(tls, &config.state_dir).ok().flatten().map(|one| one.to_string());
    let clients = tls.clients.as_ref().map(|clients| if clients.required { "required" } else { "optional" });
    let is_self_signed = matches!(tls.identity, Identity::SelfSigned { .. });
    Some(json!({"self_signed": is_self_signed, "sha256": fingerprint, "client_certificates": clients}))
}

/// The patients whose limits are shown.
fn wanted<'c>(config: &'c Config, args: &CheckArgs) -> Result<Vec<&'c Patient>, CommandError> {
    let Some(wanted) = &args.patient else {
        return Ok(config.patients.iter().collect());
    };
    match config.patients.iter().find(|patient| patient.id == *wanted) {
        Some(patient) => Ok(vec![patient]),
        None => Err(CommandError::Refused(format!("{} has no patient {wanted}", args.config.display()))),
    }
}

/// The limits of the patients for a program.
fn limits_of(config: &Config, args: &CheckArgs) -> Result<Vec<Json>, CommandError> {
    let now = Clock::System.now().wall;
    let shown = |limit: &EffectiveLimit| {
        let mut json = json!(limit);
        if let Some(members) = json.as_object_mut() {
            members.insert("summary".to_owned(), limit.summary().into());
        }
        json
    };
    let of = |patient: &&Patient| {
        let limits: Vec<Json> = config.rules.limits(&patient.id, now).iter().map(shown).collect();
        let score = config.news2.get(&patient.id);
        let news2 = score.map(|settings| {
            let (by, reason) = settings.decision.clone().unzip();
            json!({"spo2_scale": scale(settings), "by": by, "reason": reason})
        });
        json!({"patient_id": patient.id, "news2": news2, "limits": limits})
    };
    Ok(wanted(config, args)?.iter().map(of).collect())
}

const fn scale(settings: &News2Settings) -> u8 {
    match settings.scale {
        Spo2Scale::One => 1,
        Spo2Scale::Two => 2,
    }
}

/// Whether an early warning score is computed, and how.
fn news2(settings: Option<&News2Settings>) -> String {
    match settings {
        None => "NEWS2: off".to_owned(),
        Some(settings) => {
            let who = settings.decision.as_ref().map(|(by, reason)| format!(" by {by}: {reason}"));
            format!("NEWS2: on, SpO2 scale {}{}", scale(settings), who.unwrap_or_default())
        }
    }
}

/// Broken profiles of the directory, all at once.
fn refuse(broken: &[String]) -> Result<(), CommandError> {
    if broken.is_empty() {
        return Ok(());
    }
    Err(CommandError::Refused(format!("the profiles have {} problems:\n{}", broken.len(), broken.join("\n"))))
}

/// One limit in a line: what, how urgent, after how long, and where that stands or who set it until when.
fn line(limit: &EffectiveLimit, rules_file: Option<&Path>) -> String {
    let metrics = limit.metrics.join(" or ");
    let delay = Decimal::new(i64::try_from(limit.delay_ms).unwrap_or(i64::MAX), -3).map_or(String::new(), |seconds| {
        format!(" for {} s", seconds.to_string().trim_end_matches('0').trim_end_matches('.'))
    });
    let place = match (limit.line, rules_file) {
        (Some(line), Some(file)) => format!("{}:{line}", file.display()),
        _ => "default set".to_owned(),
    };
    let who = |decision: &Decision| {
        let until = decision.expires.map_or_else(String::new, |expires| format!(" until {expires}"));
        format!("by {}{until}: {}", decision.by, decision.reason)
    };
    let set_by = match (&limit.off, &limit.decision) {
        (Some(off), _) => format!("ALARM OFF, {place}, {}", who(off)),
        (None, Some(decision)) => format!("{}, {place}, {}", limit.source, who(decision)),
        (None, None) => place,
    };
    let what = format!("{metrics} {}", limit.text);
    let delay = if limit.delay_ms == 0 { "" } else { &delay };
    format!("{}: {}{delay}, {} [{set_by}]", limit.rule, what.trim_start(), limit.priority)
}
