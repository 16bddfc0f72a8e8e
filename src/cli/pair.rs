//! `vitalbridge pair`: pairs with a sensor, asking the person at the terminal what has to be asked.

use std::io::{self, BufRead as _};
use std::time::Duration;

use clap::Args;
use tokio::task::JoinHandle;

use super::{CommandError, note, say, with_bluez};
use crate::bluez::{
    AgentRequest, Bluez, BluezLimits, Capability, Named, Pairing, Question, Record, Step, find, parse_passkey,
};
use crate::profile::Models;

/// How often a person may type something that is no answer.
const ATTEMPTS: u8 = 3;
/// Longest line that is taken from the terminal; a PIN has 16 characters at most.
const MAX_LINE_BYTES: u64 = 256;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  vitalbridge pair C0:FF:EE:00:00:0A\n  vitalbridge pair \"A&D_UA-651BLE_1234\"\n  \
                        vitalbridge pair C0:FF:EE:00:00:0A --passkey 004711\n\n\
                        Put the device into pairing mode first; its manual says how (a cuff often shows `Pr` or `P`).\n\
                        What can be paired with nothing to see or type is paired at once; a passkey or a comparison is \
                        asked for\nhere. A bond that is lost is never made again by itself."
)]
pub(super) struct PairArgs {
    /// The device's address, or its advertised name in full.
    #[arg(value_name = "ADDRESS|NAME")]
    device: Named,
    /// The passkey that the device shows, if it is known already.
    #[arg(long, value_name = "DIGITS")]
    passkey: Option<String>,
    /// Take a comparison as right without asking. Only where nobody else is near.
    #[arg(long)]
    yes: bool,
    /// How long to look for the device.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// How long the pairing itself may take, with everything that is typed.
    #[arg(long, value_name = "SECONDS", default_value_t = 75, value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
    /// The adapter, such as hci1; without it, the first one.
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
}

pub(super) fn run(args: &PairArgs) -> Result<(), CommandError> {
    if let Some(passkey) = &args.passkey
        && parse_passkey(passkey).is_none()
    {
        return Err(CommandError::Usage(format!("`{passkey}` is not a passkey: it has up to six digits")));
    }
    with_bluez(async || {
        let limits = BluezLimits { pair: Duration::from_secs(args.timeout), ..BluezLimits::default() };
        let bluez = Bluez::connect_to(None, limits).await?;
        note(&format!("looking for {} for up to {} s", args.device, args.seconds));
        let device = find(&bluez, args.adapter.as_deref(), &args.device, Duration::from_secs(args.seconds)).await?;
        let title = format!("{} {}", device.address, Record::of(&device, &Models::built_in()).title());
        note(&format!("pairing with {title}"));
        let mut pairing = Pairing::start(&bluez, device.peer.clone(), Capability::KeyboardDisplay).await?;
        let ended = tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => Err(CommandError::Unavailable("the pairing was cancelled".to_owned())),
            ended = drive(&mut pairing, args) => ended,
        };
        // Also after Ctrl-C: BlueZ would go on for a while, and refuse the next one meanwhile.
        pairing.end().await;
        say(&format!("{}: {title}", ended?))?;
        Ok(say("The bond is kept; `vitalbridge devices` lists it, `vitalbridge scan` prints the lines to add it.")?)
    })
}

/// What the person at the terminal is being asked.
struct Asking {
    request: AgentRequest,
    line: JoinHandle<io::Result<String>>,
    attempts: u8,
}

/// Follows the pairing to its end, asking and answering.
async fn drive(pairing: &mut Pairing, args: &PairArgs) -> Result<&'static str, CommandError> {
    let mut asking: Option<Asking> = None;
    loop {
        let step = tokio::select! {
            biased;
            step = pairing.next() => step?,
            line = typed(asking.as_mut()) => {
                if let Some(asked) = asking.take() {
                    asking = answer(asked, &line?).await?;
                }
                continue;
            }
        };
        match step {
            Step::Paired => return Ok("paired and trusted"),
            Step::WasPaired => return Ok("it was paired before, and is trusted now"),
            Step::Asked(request) => asking = take(request, args).await?,
        }
    }
}

/// The line that was typed; waits for ever if nothing is asked.
async fn typed(asking: Option<&mut Asking>) -> io::Result<String> {
    match asking {
        Some(asking) => (&mut asking.line).await.unwrap_or_else(|error| Err(io::Error::other(error))),
        None => std::future::pending().await,
    }
}

/// Answers what needs no person, and asks the person the rest.
async fn take(request: AgentRequest, args: &PairArgs) -> Result<Option<Asking>, CommandError> {
    match (&request.question, &args.passkey) {
        // It is the device that was named on the command line.
        (Question::Authorize | Question::AuthorizeService { .. }, _) => request.accept().await?,
        (Question::Confirm { passkey }, _) if args.yes => {
            note(&format!("taking {passkey:06} as shown by the device"));
            request.accept().await?;
        }
        (Question::EnterPasskey, Some(passkey)) => request.passkey(parse_passkey(passkey).unwrap_or_default()).await?,
        (Question::EnterPin, Some(pin)) => request.pin(pin).await?,
        (Question::ShowPasskey { passkey, entered: 0 }, _) => note(&format!("type {passkey:06} at the device")),
        (Question::ShowPin { pin }, _) => note(&format!("type {} at the device", pin.escape_debug())),
        (Question::ShowPasskey { .. }, _) => {}
        (Question::Cancelled, _) => note("the device has given up"),
        (Question::Confirm { .. } | Question::EnterPasskey | Question::EnterPin, _) => {
            return Ok(Some(ask(request, ATTEMPTS)));
        }
    }
    Ok(None)
}

fn ask(request: AgentRequest, attempts: u8) -> Asking {
    note(&match &request.question {
        Question::Confirm { passkey } => format!("does the device show {passkey:06}? [y/n]"),
        Question::EnterPin => "PIN of the device:".to_owned(),
        _ => "passkey that the device shows (six digits):".to_owned(),
    });
    Asking { request, line: tokio::task::spawn_blocking(read_line), attempts }
}

fn read_line() -> io::Result<String> {
    let mut line = String::new();
    io::Read::take(io::stdin().lock(), MAX_LINE_BYTES).read_line(&mut line)?;
    Ok(line)
}

/// Gives what was typed to BlueZ; asks again if it is no answer.
async fn answer(asking: Asking, line: &str) -> Result<Option<Asking>, CommandError> {
    let Asking { request, attempts, .. } = asking;
    if line.is_empty() {
        request.reject().await?;
        let advice = "the pairing needs an answer and nobody is at the terminal; give --passkey DIGITS, or --yes for a comparison";
        return Err(CommandError::Usage(advice.to_owned()));
    }
    let text = line.trim();
    match (&request.question, text.to_lowercase().as_str()) {
        (Question::Confirm { .. }, "y" | "yes") => request.accept().await?,
        (Question::Confirm { .. }, "n" | "no") => {
            request.reject().await?;
            let advice = "the numbers differ, so this may be another device: it was not paired; see which one you have with \
                          `vitalbridge scan`";
            return Err(CommandError::Unavailable(advice.to_owned()));
        }
        (Question::EnterPin, pin) if !pin.is_empty() => request.pin(text).await?,
        (Question::EnterPasskey, _) if parse_passkey(text).is_some() => {
            request.passkey(parse_passkey(text).unwrap_or_default()).await?;
        }
        _ if attempts > 1 => return Ok(Some(ask(request, attempts - 1))),
        _ => {
            request.reject().await?;
            return Err(CommandError::Usage("that was no answer; the pairing was cancelled".to_owned()));
        }
    }
    Ok(None)
}
