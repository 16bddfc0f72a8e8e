//! `vitalbridge token`: tokens for programs, sign-in codes for people.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::{CommandError, reachable, say};
use crate::clock::Clock;
use crate::config::{Config, Place};
use crate::daemon::token_key;
use crate::ids::PatientId;
use crate::server::auth::{Capability, Role};
use crate::server::codes::{CODE_LIFE_MS, hex, new_code, random_bytes};
use crate::server::jwt::{Claims, MAX_TOKEN_SECONDS};
use crate::server::tls;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  vitalbridge token issue --role nurse --patient P-0001 --for 8h\n  vitalbridge token code"
)]
pub(super) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Print a token.
    Issue(IssueArgs),
    /// Print a code for the sign-in page; it works once, for ten minutes.
    Code(CodeArgs),
}

#[derive(Debug, Args)]
struct Whose {
    /// The configuration file; without it and without --state-dir, /etc/vitalbridge/vitalbridge.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The state directory of the daemon that shall take it.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// viewer, nurse, clinician, admin or service.
    #[arg(long, default_value = "nurse", value_parser = role)]
    role: Role,
    /// The user's name or number.
    #[arg(long, default_value = "local")]
    user: String,
}

#[derive(Debug, Args)]
struct IssueArgs {
    #[command(flatten)]
    whose: Whose,
    /// Only for this patient; may be given several times.
    #[arg(long = "patient", value_name = "ID")]
    patients: Vec<PatientId>,
    /// How long it works, for example 30m or 8h; at most 24h.
    #[arg(long = "for", value_name = "TIME", default_value = "8h", value_parser = seconds)]
    life: i64,
}

#[derive(Debug, Args)]
struct CodeArgs {
    #[command(flatten)]
    whose: Whose,
    /// Where the daemon listens, if its command line said so.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
}

fn role(text: &str) -> Result<Role, String> {
    Role::from_name(text).ok_or_else(|| "a role is viewer, nurse, clinician, admin or service".to_owned())
}

fn seconds(text: &str) -> Result<i64, String> {
    let (digits, unit) = match text.strip_suffix(['h', 'm', 's']) {
        Some(digits) => (digits, text.chars().last().unwrap_or('s')),
        None => (text, 's'),
    };
    let factor = match unit {
        'h' => 3600,
        'm' => 60,
        _ => 1,
    };
    let life = digits.parse::<i64>().ok().and_then(|count| count.checked_mul(factor));
    life.filter(|life| (1..=MAX_TOKEN_SECONDS).contains(life))
        .ok_or_else(|| "a time from 1s to 24h, such as 8h".to_owned())
}

impl Whose {
    fn config(&self, listen: Option<SocketAddr>) -> Result<Config, CommandError> {
        let place = Place { listen, state_dir: self.state_dir.clone() };
        match (&self.config, &self.state_dir) {
            (Some(file), _) => Ok(Config::load(file, &place)?),
            (None, Some(_)) => Ok(Config::empty(&place)),
            (None, None) => Ok(Config::load(Path::new("/etc/vitalbridge/vitalbridge.toml"), &place)?),
        }
    }
}

pub(super) fn run(args: TokenArgs) -> Result<(), CommandError> {
    match args.command {
        TokenCommand::Issue(args) => issue(&args),
        TokenCommand::Code(args) => code(&args),
    }
}

fn issue(args: &IssueArgs) -> Result<(), CommandError> {
    let key = token_key(&args.whose.config(None)?)?;
    let now = Clock::System.now().wall.as_secs();
    let role = args.whose.role;
    let caps = args.patients.iter().map(|patient| Capability::of_patient(patient, role)).collect::<Vec<_>>();
    let claims = Claims {
        sub: args.whose.user.clone(),
        role,
        caps: (!caps.is_empty()).then_some(caps),
        jti: Some(hex(&random_bytes::<8>()?)),
        iat: Some(now),
        nbf: None,
        exp: now.saturating_add(args.life),
    };
    let token = key.issue(&claims).map_err(anyhow::Error::from)?;
    Ok(say(token.expose())?)
}

fn code(args: &CodeArgs) -> Result<(), CommandError> {
    let config = args.whose.config(args.listen)?;
    // A state directory without a secret is not that of a daemon that has run.
    if !config.secret_file.exists() {
        let reason =
            format!("{} has no token secret: is this the daemon's state directory?", config.state_dir.display());
        return Err(CommandError::Usage(reason));
    }
    let code = new_code(&config.state_dir, &args.whose.user, args.whose.role, Clock::System.now().wall)?;
    if config.server.listen.port() == 0 {
        say(code.expose())?;
        say("Enter it on the page: the daemon takes a free port, and prints the address when it starts.")?;
    } else {
        let (scheme, address) = (config.server.scheme(), reachable(config.server.listen));
        say(&format!("{scheme}://{address}/#code={}", code.expose()))?;
    }
    if let Some(tls) = &config.server.tls {
        let known = tls::fingerprint(tls, &config.state_dir).map_err(anyhow::Error::from)?;
        if let Some(fingerprint) = known {
            say(&format!("The browser shows a certificate with the SHA-256 fingerprint {fingerprint}"))?;
        }
    }
    say(&format!(
        "The code works once, for {} minutes, for {} as {}.",
        CODE_LIFE_MS / 60_000,
        args.whose.user,
        args.whose.role
    ))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_has_a_unit_and_an_end() {
        for (text, expected) in [("8h", Some(28_800)), ("30m", Some(1800)), ("90", Some(90)), ("24h", Some(86_400))] {
            assert_eq!(seconds(text).ok(), expected);
        }
        for bad in ["25h", "0s", "-1h", "h", "", "8d", "99999999999999999h"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
