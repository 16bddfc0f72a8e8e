//! `vitalbridge token`: tokens for programs, sign-in codes for people.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{CommandError, reachable, say};
use crate::clock::{Clock, Wall};
use crate::config::{Config, Place};
use crate::daemon::token_key;
use crate::ids::PatientId;
use crate::server::auth::{Capability, Role};
use crate::server::codes::{CODE_LIFE_MS, hex, new_code, random_bytes};
use crate::server::jwt::{Claims, MAX_TOKEN_SECONDS};
use crate::server::revocation::{NotRevoked, RevocationFile, Whose as Revoked};

/// Who revokes on the command line, for the audit trail: whoever may write into the state directory.
const BY: &str = "command-line";
use crate::server::tls;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  vitalbridge token issue --role nurse --patient P-0001 --for 8h\n  vitalbridge token code\n  \
                  vitalbridge token revoke --user lena"
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
    /// Have a token, or all that a user has, refused from now on; a running daemon closes their connections at once.
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
struct Whose {
    #[command(flatten)]
    state: StateArgs,
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
    /// Print the token with its name (`jti`), user, role and end as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: vitalbridge token revoke --jti 5f0c6a1b2d3e4f50")]
struct RevokeArgs {
    #[command(flatten)]
    state: StateArgs,
    /// The token of this name: `vitalbridge token issue --json` prints it.
    #[arg(long, required_unless_present = "user", conflicts_with = "user")]
    jti: Option<String>,
    /// Every token of this user that was issued until now.
    #[arg(long)]
    user: Option<String>,
    /// Print what was done as JSON.
    #[arg(long)]
    json: bool,
}

/// Which state directory.
#[derive(Debug, Args)]
pub(super) struct StateArgs {
    /// The configuration file; without it and without --state-dir, /etc/vitalbridge/vitalbridge.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The state directory of the daemon.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
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

impl StateArgs {
    /// The configuration with this state directory.
    pub(super) fn config(&self, listen: Option<SocketAddr>) -> Result<Config, CommandError> {
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
        TokenCommand::Revoke(args) => revoke(args),
    }
}

fn issue(args: &IssueArgs) -> Result<(), CommandError> {
    let key = token_key(&args.whose.state.config(None)?)?;
    if !key.issues() {
        let reason = "this bridge issues no tokens (`auth.own_tokens = false`): its trusted issuers do";
        return Err(CommandError::Usage(reason.to_owned()));
    }
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
    if !args.json {
        return Ok(say(token.expose())?);
    }
    let told = json!({
        "token": token.expose(), "jti": claims.jti, "user_id": claims.sub, "role": role.name(),
        "expires_at": Wall(claims.exp.saturating_mul(1000)).to_string(),
    });
    Ok(say(&told.to_string())?)
}

/// Written into the state directory, where a running daemon looks; one that starts later reads it too.
fn revoke(args: RevokeArgs) -> Result<(), CommandError> {
    let config = args.state.config(None)?;
    if !config.state_dir.is_dir() {
        let reason = format!("{} is no state directory of a daemon that has run", config.state_dir.display());
        return Err(CommandError::Usage(reason));
    }
    let whose = match (args.jti, args.user) {
        (Some(jti), _) => Revoked::Jti(jti),
        (None, user) => Revoked::User(user.unwrap_or_default()),
    };
    let now = Clock::System.now().wall;
    match RevocationFile::new(config.state_dir).revoke(whose.clone(), BY, now) {
        Ok(_) if args.json => {
            Ok(say(&json!({"ok": true, "revoked": whose, "revoked_at": now.to_string()}).to_string())?)
        }
        Ok(_) => Ok(say(&format!(
            "Revoked: {}. A running daemon closes its connections within a second.",
            whose.describe()
        ))?),
        Err(error @ NotRevoked::Name) => Err(CommandError::Usage(error.to_string())),
        Err(error) => Err(anyhow::Error::from(error).into()),
    }
}

fn code(args: &CodeArgs) -> Result<(), CommandError> {
    let config = args.whose.state.config(args.listen)?;
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
