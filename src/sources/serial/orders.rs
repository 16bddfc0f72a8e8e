//! What people order at a port: to confirm the device that is there, or to send one of its profile's commands.

use std::collections::BTreeSet;

use crate::clock::Stamp;
use crate::event::{NotDone, Order, OrderKind};
use crate::profile::model::Command;
use crate::sources::SourceError;
use crate::sources::output::SourceOutput;

use super::identity::Guard;
use super::{PortMemory, SerialConfig};

/// An order that is not carried out.
fn refused(code: &'static str, reason: impl Into<String>) -> NotDone {
    NotDone { code, reason: reason.into(), was_tried: false }
}

/// The command of an order, if the profile has it and this port may send it.
///
/// What actuates needs leave in the source's own configuration: that a person asks is not enough.
pub(super) fn allowed<'c>(config: &'c SerialConfig, name: &str) -> Result<&'c Command, NotDone> {
    let commands = &config.profile.link().commands;
    let Some(command) = commands.iter().find(|command| command.id == name) else {
        let known: Vec<&str> = commands.iter().map(|command| command.id.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(refused(
            "unknown_command",
            format!("the profile {} has no command of this name; it has {known}", config.profile.id()),
        ));
    };
    if command.actuates && !config.allow_commands.contains(name) {
        return Err(refused(
            "not_allowed",
            format!("`{name}` moves something on the patient and is not in `allow_commands` of this source"),
        ));
    }
    Ok(command)
}

/// Refuses an order that waited for too long: whoever asked may have turned away from the patient.
pub(super) fn in_time(order: &Order, now: Stamp) -> Result<(), NotDone> {
    if now.mono > order.until {
        return Err(refused("too_late", "the port could not take it in time; ask again"));
    }
    Ok(())
}

/// Refuses a command while it is not certain whose device would take it.
pub(super) fn of_known_device(memory: &PortMemory) -> Result<(), NotDone> {
    match memory.guard.as_ref().and_then(Guard::objection) {
        Some(objection) => Err(refused("device_changed", objection)),
        None => Ok(()),
    }
}

/// Carries out what needs no open port, and refuses the rest.
pub(in crate::sources) async fn obey_while_closed(
    order: Order,
    memory: &mut PortMemory,
    output: &mut SourceOutput,
) -> Result<(), SourceError> {
    let result = match &order.kind {
        OrderKind::Confirm { serial_number } => confirm(memory, output, serial_number),
        OrderKind::Command { .. } => Err(refused("not_connected", "the port is not open")),
    };
    output.answer(order.number, result).await
}

/// A person says that the device with this serial number is the right one.
pub(super) fn confirm(memory: &mut PortMemory, output: &mut SourceOutput, number: &str) -> Result<(), NotDone> {
    let Some(guard) = &mut memory.guard else {
        return Err(refused("not_connected", "nothing was heard at this port yet"));
    };
    guard.confirm(number)?;
    output.stand(BTreeSet::new());
    Ok(())
}
