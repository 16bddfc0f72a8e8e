//! One time that the port is open: talks as the profile says, decodes what comes, and tells when the port has gone.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::MissedTickBehavior;
use tokio_serial::{ClearBuffer, SerialPort as _};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use crate::clock::{Mono, Stamp};
use crate::decode::{FrameCounters, IdentityCounters};
use crate::event::{AuditAction, LinkState, NotDone, Order, OrderKind};
use crate::profile::model::{Command, Repeat, Step};
use crate::sources::device_clock::{DeviceClock, Related};
use crate::sources::output::{Observation, SourceCounters, SourceOutput, When};
use crate::sources::stream::{Arrived, Stream};
use crate::sources::{Memory, RESEND_EVERY, SourceError, next_order};
use crate::vitals::{Quality, Status};

use super::identity::{Finding, Guard};
use super::line_errors::LineErrors;
use super::orders;
use super::port::Port;
use super::{SerialConfig, SerialPort};

/// Bytes taken from the port at once.
const READ_BUFFER: usize = 4096;
/// A device that does not take what is sent for so long has gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// A silent TCP connection is given up after this, or after the profile's silence if that is longer: a serial server that restarted never says so.
const TCP_SILENCE: Duration = Duration::from_secs(30);
/// A silent device is greeted again this often: it may have been switched off and on behind its adapter.
const GREET_AGAIN: Duration = Duration::from_secs(5);
/// How long each of several line settings is listened to.
const PROBE: Duration = Duration::from_secs(2);
/// Good frames in a row that show, without a checksum, that line settings fit: noise gives a few in a row by chance.
const FRAMES_IN_A_ROW: u64 = 20;
/// Line settings that were found are looked for again after bytes without a good frame for so long: somebody changed them.
const UNFIT: Duration = Duration::from_secs(30);
/// So many bytes without a good frame are no mere disturbance of a line whose device was switched off.
const UNFIT_BYTES: usize = 64;
/// What a driver says last has left the line after this, at 9600 bit/s too; closing the port throws away the rest.
const FAREWELL: Duration = Duration::from_millis(250);
/// Bytes among which an answer is looked for.
const REPLY_WINDOW: usize = 512;

/// Why a session ended without an error.
pub(super) enum Ended {
    /// The daemon stops.
    Stopped,
    /// These line settings carried no frame; the next ones are to be tried.
    NothingHeard,
}
/// One time that the port is open.
pub(super) struct Session<'a> {
    config: &'a SerialConfig,
    output: &'a mut SourceOutput,
    memory: &'a mut Memory,
    port: Port,
    stream: Stream,
    /// True while it is only listened whether these line settings fit: nothing is sent.
    probing: bool,
    opened: Mono,
    /// What is sent again and again, and when next.
    repeats: Vec<(Mono, &'a Repeat)>,
    /// The device has to be told to start.
    greet_due: bool,
    /// When a silent device is greeted again.
    greet_at: Option<Mono>,
    /// When the last good frame came; before the first, when the port was opened.
    framed: Mono,
    /// Good frames with nothing between them, while it is only listened.
    in_a_row: u64,
    /// Bytes since the last good frame.
    unframed: usize,
    /// Steps in a row that the device has not answered; the first is a warning.
    unanswered: u32,
    /// How often the number had been told when that was looked at last.
    identity: IdentityCounters,
    /// The device has told its number since it was silent last.
    tells_number: bool,
    /// The end of what was received, while an answer is looked for.
    tail: Vec<u8>,
    /// When something was sent last.
    sent: Option<Mono>,
    /// What the driver had counted about the line a second ago, if it counts.
    line_errors: Option<LineErrors>,
    /// What the device's clock said.
    device_clock: DeviceClock,
}

/// What happened at an open port.
enum Happened {
    Order(Order),
    Stop,
    Second,
    SendDue,
    Read(io::Result<usize>),
}

impl Drop for Session<'_> {
    /// Closing a port waits for what is still to be sent, with RTS/CTS for up to 30 s: it is thrown away instead.
    fn drop(&mut self) {
        if let Either::Left(port) = &self.port
            && let Err(error) = port.clear(ClearBuffer::Output)
        {
            tracing::trace!(port = %self.config.port, %error, "what was to be sent cannot be thrown away");
        }
    }
}

impl<'a> Session<'a> {
    pub(super) fn new(
        config: &'a SerialConfig,
        port: Port,
        output: &'a mut SourceOutput,
        memory: &'a mut Memory,
        probing: bool,
    ) -> Self {
        let now = output.now();
        if probing {
            memory.port.quiet_since.get_or_insert(now.mono);
        }
        if let Some(guard) = &mut memory.port.guard {
            guard.forget();
        }
        let line_errors = match &port {
            Either::Left(port) => LineErrors::of(port),
            Either::Right(_) => None,
        };
        Self {
            config,
            line_errors,
            device_clock: DeviceClock::default(),
            port,
            stream: Stream::new(&config.profile, now),
            output,
            memory,
            probing,
            opened: now.mono,
            repeats: Vec::new(),
            greet_due: !probing,
            greet_at: None,
            framed: now.mono,
            in_a_row: 0,
            unframed: 0,
            unanswered: 0,
            identity: IdentityCounters::default(),
            tells_number: false,
            tail: Vec::new(),
            sent: None,
        }
    }

    pub(super) async fn run(mut self, stop: &CancellationToken) -> Result<Ended, SourceError> {
        let mut buffer = vec![0; READ_BUFFER];
        let mut seconds = tokio::time::interval(RESEND_EVERY);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick comes at once.
        seconds.tick().await;
        loop {
            if std::mem::take(&mut self.greet_due) {
                self.greet().await?;
            }
            let send_in = self.next_send().map(|at| at.since(self.output.now().mono));
            let happened = tokio::select! {
                biased;
                // The daemon stops.
                () = stop.cancelled() => Happened::Stop,
                // A second is over. Before reading, so that a flood of bytes cannot hold it up.
                _ = seconds.tick() => Happened::Second,
                // A person wants something of the device. A person is slower than any device.
                order = next_order(&mut self.memory.orders) => Happened::Order(order),
                // The device waits for a keep-alive or a poll.
                () = tokio::time::sleep(send_in.unwrap_or(Duration::MAX)), if send_in.is_some() => Happened::SendDue,
                // Bytes came, or the port has gone.
                read = self.port.read(&mut buffer) => Happened::Read(read),
            };
            match happened {
                Happened::Stop => {
                    self.say_goodbye().await;
                    return Ok(Ended::Stopped);
                }
                Happened::Second => {
                    if self.second().await? {
                        return Ok(Ended::NothingHeard);
                    }
                }
                Happened::Order(order) => self.obey(order).await?,
                Happened::SendDue => self.send_due().await?,
                Happened::Read(read) => self.take(read, &buffer).await?,
            }
        }
    }

    /// Sends what makes the device start, and begins to count until the next keep-alive.
    async fn greet(&mut self) -> Result<(), SourceError> {
        let config = self.config;
        let link = config.profile.link();
        self.send_steps(&link.init).await?;
        self.stream.begin(self.output.now());
        self.send_outgoing().await?;
        let now = self.output.now().mono;
        self.repeats = link.keep_alive.iter().chain(&link.poll).map(|repeat| (now + repeat.every, repeat)).collect();
        self.greet_at = (!link.init.is_empty()).then(|| now + GREET_AGAIN.max(link.silence));
        Ok(())
    }

    async fn send_steps(&mut self, steps: &[Step]) -> Result<(), SourceError> {
        for step in steps {
            self.tail.clear();
            self.write(&step.send).await?;
            let Some(reply) = &step.reply else { continue };
            if self.hears(reply, step.within).await? {
                self.unanswered = 0;
                continue;
            }
            if self.unanswered == 0 {
                tracing::warn!(port = %self.config.port, expected = ?reply, "the device gave no answer");
            }
            self.unanswered = self.unanswered.saturating_add(1);
        }
        Ok(())
    }

    /// Reads until these bytes have come, at most for `within`.
    async fn hears(&mut self, reply: &[u8], within: Duration) -> Result<bool, SourceError> {
        let until = self.output.now().mono + within;
        let mut buffer = vec![0; READ_BUFFER];
        while !self.tail.windows(reply.len().max(1)).any(|window| window == reply) {
            let left = until.since(self.output.now().mono);
            let Ok(read) = tokio::time::timeout(left, self.port.read(&mut buffer)).await else {
                return Ok(false);
            };
            self.take(read, &buffer).await?;
        }
        Ok(true)
    }

    /// Sends bytes, not before the link's gap after those sent last: some modules drop what comes too soon.
    async fn write(&mut self, bytes: &[u8]) -> Result<(), SourceError> {
        if let Some(sent) = self.sent {
            let gap_ends = sent + self.config.profile.link().gap;
            tokio::time::sleep(gap_ends.since(self.output.now().mono)).await;
        }
        let write = tokio::time::timeout(WRITE_TIMEOUT, self.port.write_all(bytes)).await;
        let lost = |reason: String| SourceError::Lost { port: self.config.port.to_string(), reason };
        match write {
            Ok(Ok(())) => {
                self.sent = Some(self.output.now().mono);
                Ok(())
            }
            Ok(Err(error)) => Err(lost(error.to_string())),
            Err(_) => Err(lost(format!("it takes no bytes for {} s", WRITE_TIMEOUT.as_secs()))),
        }
    }

    /// Sends what a driver has to say.
    async fn send_outgoing(&mut self) -> Result<(), SourceError> {
        let bytes = self.stream.take_outgoing();
        if bytes.is_empty() { Ok(()) } else { self.write(&bytes).await }
    }

    /// Tells the device that nobody listens any more. What cannot be sent any more does not matter.
    async fn say_goodbye(&mut self) {
        let config = self.config;
        if !self.probing {
            self.stream.end();
            let farewell = self.stream.take_outgoing();
            if let Err(error) = self.write(&farewell).await {
                tracing::debug!(port = %config.port, %error, "the device was not told that nobody listens");
            } else if !farewell.is_empty() {
                tokio::time::sleep(FAREWELL).await;
            }
        }
        if !self.probing
            && let Err(error) = self.send_steps(&config.profile.link().stop).await
        {
            tracing::debug!(port = %config.port, %error, "the device was not told to stop");
        }
        // What is still on its way when the port is closed is thrown away.
        tokio::time::sleep(config.profile.link().gap).await;
    }

    fn next_send(&self) -> Option<Mono> {
        self.repeats.iter().map(|(at, _)| *at).chain(self.stream.next_deadline()).min()
    }

    async fn send_due(&mut self) -> Result<(), SourceError> {
        let now = self.output.now();
        let told = self.stream.on_time(now);
        self.send_outgoing().await?;
        self.hand_on(told).await?;
        let now = now.mono;
        let due: Vec<&'a Repeat> =
            self.repeats.iter().filter(|(at, _)| *at <= now).map(|(_, repeat)| *repeat).collect();
        for (at, repeat) in &mut self.repeats {
            if *at <= now {
                *at = now + repeat.every;
            }
        }
        for repeat in due {
            self.write(&repeat.send).await?;
        }
        Ok(())
    }

    /// Takes what a read gave. No bytes mean that the port has gone: a port that was hung up gives them for ever.
    async fn take(&mut self, read: io::Result<usize>, buffer: &[u8]) -> Result<(), SourceError> {
        SourceCounters::add(&self.output.counters().reads, 1);
        let lost = |reason: String| SourceError::Lost { port: self.config.port.to_string(), reason };
        // EIO, ENXIO and ENODEV: the adapter was pulled out.
        let count = read.map_err(|error| lost(error.to_string()))?;
        if count == 0 {
            return Err(lost("it was hung up".to_owned()));
        }
        let bytes = buffer.get(..count).unwrap_or_default();
        self.remember_tail(bytes);
        let now = self.output.now();
        let was_silent = self.notice_silence(now);
        let counters = self.output.counters();
        SourceCounters::add(&counters.bytes, u64::try_from(count).unwrap_or(0));
        let at_once = self.stream.push(bytes, now);
        let framed = self.stream.take_counters();
        self.unframed = self.unframed.saturating_add(count);
        if framed.frames > 0 {
            self.framed = now.mono;
            self.unframed = 0;
            // It is back: whoever tells the number in the greeting only is asked soon.
            self.greet_at = self.greet_at.map(|at| if was_silent { now.mono } else { at });
        }
        for (counter, amount) in [
            (&counters.frames, framed.frames),
            (&counters.bad_checksums, framed.bad_checksum),
            (&counters.rubbish_bytes, framed.skipped_bytes),
            (&counters.resyncs, framed.resyncs),
        ] {
            SourceCounters::add(counter, amount);
        }
        if self.probing {
            // Nothing that came before the line settings were known counts, nor what showed that they fit.
            self.weigh(framed, now);
            return Ok(());
        }
        self.check_identity().await?;
        if self.stream.is_live(now) && !self.memory.was_live {
            self.memory.was_live = true;
        }
        let waves = self.stream.take_waves();
        if self.objection().is_none() {
            for wave in waves {
                self.output.wave(wave, now);
            }
        }
        self.send_outgoing().await?;
        self.hand_on(at_once).await?;
        // The first good frame is told at once; every other change waits for the end of the second.
        if matches!(self.output.link_state(), Some(LinkState::Waiting | LinkState::Silent)) {
            self.report_link().await?;
        }
        Ok(())
    }

    /// Decides whether these line settings fit: by a checksum, by lines of text that a profile describes, or by many good
    /// frames in a row. What was decoded until then is dropped with its stream.
    fn weigh(&mut self, framed: FrameCounters, now: Stamp) {
        let is_disturbed = framed.skipped_bytes > 0 || framed.bad_checksum > 0 || framed.resyncs > 0;
        self.in_a_row = if is_disturbed { 0 } else { self.in_a_row.saturating_add(framed.frames) };
        let profile = &self.config.profile;
        let is_certain = profile.has_checksum() || profile.is_text() || self.in_a_row >= FRAMES_IN_A_ROW;
        if !is_certain || !self.stream.is_understood(now) {
            return;
        }
        self.probing = false;
        self.memory.port.candidate_fits = true;
        self.memory.port.quiet_since = None;
        self.stream = Stream::new(profile, now);
        self.identity = IdentityCounters::default();
        self.greet_due = true;
    }

    /// True if these line settings are to be given up for the next ones.
    fn is_over(&self, now: Stamp) -> bool {
        // A slow device needs longer for its frames in a row.
        let since = if self.in_a_row > 0 { self.framed } else { self.opened };
        now.mono.since(since) >= PROBE
    }

    /// Forgets line settings that do not fit any more; true if they were found by listening, and so can be found again.
    fn gives_up_settings(&mut self, now: Stamp) -> bool {
        let limit = UNFIT.max(self.config.profile.link().silence);
        let memory = &mut self.memory.port;
        if !memory.candidate_fits || self.unframed < UNFIT_BYTES || now.mono.since(self.framed) < limit {
            return false;
        }
        tracing::warn!(port = %self.config.port, "the line settings do not fit any more; others are tried");
        memory.candidate_fits = false;
        memory.quiet_since = Some(self.framed);
        true
    }

    fn remember_tail(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        let surplus = self.tail.len().saturating_sub(REPLY_WINDOW);
        self.tail.drain(..surplus);
    }

    /// Compares the serial number that the device tells with the one that this bed's device has.
    async fn check_identity(&mut self) -> Result<(), SourceError> {
        let now = self.output.now().mono;
        let counted = self.stream.identity();
        let before = std::mem::replace(&mut self.identity, counted);
        let Some(guard) = &mut self.memory.port.guard else { return Ok(()) };
        if counted.missing > before.missing {
            self.tells_number = false;
            guard.forget();
        } else if counted.told > before.told {
            self.tells_number = true;
        }
        let told = self.stream.serial_number().filter(|_| self.tells_number);
        let finding = guard.hear(told, now);
        self.output.stand(if guard.is_doubted() { [Status::DeviceChanged].into() } else { BTreeSet::new() });
        match finding {
            None => Ok(()),
            Some(Finding::Bound(number)) => self.output.audit(AuditAction::DeviceBound, number).await,
            Some(Finding::Changed(number)) => {
                tracing::warn!(port = %self.config.port, number, "another device answers; its values are withheld");
                self.output.audit(AuditAction::DeviceChanged, number).await?;
                self.report_link().await
            }
        }
    }

    /// During a silence the cable can be put into another monitor: the number has to be told again after it.
    fn notice_silence(&mut self, now: Stamp) -> bool {
        if now.mono.since(self.framed) < self.config.profile.link().silence {
            return false;
        }
        self.tells_number = false;
        if let Some(guard) = &mut self.memory.port.guard {
            guard.forget();
        }
        true
    }

    /// True while the number is awaited of a device that says other things.
    fn awaits_number(&self) -> bool {
        self.memory.port.guard.as_ref().is_some_and(Guard::awaits_number)
    }

    /// Why nothing may be published: the device may be that of another patient.
    fn objection(&self) -> Option<String> {
        self.memory.port.guard.as_ref().and_then(Guard::objection)
    }

    /// Carries out an order, or says why not.
    async fn obey(&mut self, order: Order) -> Result<(), SourceError> {
        let result = match &order.kind {
            OrderKind::Confirm { serial_number } => orders::confirm(&mut self.memory.port, self.output, serial_number),
            OrderKind::Command { command } => match self.admit(&order, command) {
                Ok(command) => {
                    // If the port is lost meanwhile, whoever starts it again answers.
                    self.memory.in_hand = Some(order.number);
                    for bytes in &command.send {
                        self.write(bytes).await?;
                    }
                    self.memory.in_hand = None;
                    Ok(())
                }
                Err(refused) => Err(refused),
            },
        };
        self.output.answer(order.number, result).await?;
        self.report_link().await
    }

    fn admit(&self, order: &Order, name: &str) -> Result<&'a Command, NotDone> {
        let command = orders::allowed(self.config, name)?;
        orders::in_time(order, self.output.now())?;
        orders::of_known_device(&self.memory.port)?;
        if self.probing {
            let reason = "the line settings of the device are not known yet".to_owned();
            return Err(NotDone { code: "not_connected", reason, was_tried: false });
        }
        Ok(command)
    }

    async fn hand_on(&mut self, arrived: Vec<Arrived>) -> Result<(), SourceError> {
        if self.objection().is_some() {
            return Ok(());
        }
        for Arrived { observation, received } in arrived {
            let when = self.dated(&observation, received);
            self.output.reading_of(observation, when, received).await?;
        }
        Ok(())
    }

    /// When something was measured. What a monitor sends as it measures is of now, and tells what its clock says now; what
    /// it has kept is dated by that.
    fn dated(&mut self, observation: &Observation, received: Stamp) -> When {
        let said = observation.device_time.as_deref();
        match observation.quality {
            Quality::Historic => match said.map(|said| self.device_clock.related(said, received)) {
                Some(Related::At(mapped)) => When::Mapped(mapped),
                _ => When::Unknown,
            },
            Quality::Valid => {
                if let Some(said) = said {
                    self.device_clock.on_live(said, received);
                }
                When::OnArrival
            }
            // It may be of the past, too: it says nothing of the clock.
            _ => When::OnArrival,
        }
    }

    async fn report_link(&mut self) -> Result<(), SourceError> {
        if self.probing {
            // Each of several line settings is listened to only for a moment: the silence lasts from one to the next.
            let quiet = self.memory.port.quiet_since.map(|since| self.output.now().mono.since(since));
            let is_silent = quiet.is_some_and(|quiet| quiet >= self.config.profile.link().silence);
            let state = if is_silent { LinkState::Silent } else { LinkState::Waiting };
            return self.output.state(state).await;
        }
        let (state, status) = self.stream.link(self.output.now());
        match self.objection() {
            // Something comes, and nothing that counts for this bed.
            Some(reason) if matches!(state, LinkState::Live | LinkState::SensorOff) => {
                self.output.link(LinkState::Waiting, &BTreeSet::new(), Some(&reason)).await
            }
            Some(reason) if self.memory.port.is_doubted() => self.output.link(state, &status, Some(&reason)).await,
            _ => self.output.link(state, &status, None).await,
        }
    }

    /// Adds what the driver has counted about the line since the last time, where it counts.
    fn count_line_errors(&mut self) {
        let (Some(before), Either::Left(port)) = (self.line_errors, &self.port) else { return };
        self.line_errors = LineErrors::of(port);
        let Some(fresh) = self.line_errors.map(|now| now.since(before)) else { return };
        let counters = self.output.counters();
        for (counter, amount) in [
            (&counters.framing_errors, fresh.framing),
            (&counters.parity_errors, fresh.parity),
            (&counters.overruns, fresh.overruns),
            (&counters.breaks, fresh.breaks),
        ] {
            SourceCounters::add(counter, amount);
        }
    }

    /// The end of a second: hands on what it brought, and looks after a silent device. True: try other line settings.
    async fn second(&mut self) -> Result<bool, SourceError> {
        let now = self.output.now();
        self.count_line_errors();
        self.notice_silence(now);
        if self.probing {
            self.report_link().await?;
            return Ok(self.is_over(now));
        }
        self.check_identity().await?;
        let readings = self.stream.second(now);
        self.hand_on(readings).await?;
        self.report_link().await?;
        if self.gives_up_settings(now) {
            return Ok(true);
        }
        let silent_for = self.stream.silent_for(now);
        if matches!(self.config.port, SerialPort::Tcp { .. })
            && silent_for >= TCP_SILENCE.max(self.config.profile.link().silence)
        {
            let reason = format!("nothing came for {} s", silent_for.as_secs());
            return Err(SourceError::Lost { port: self.config.port.to_string(), reason });
        }
        if self.greet_at.is_some_and(|at| at <= now.mono) {
            self.greet_at = Some(now.mono + GREET_AGAIN);
            self.greet_due = silent_for >= self.config.profile.link().silence || self.awaits_number();
        }
        Ok(false)
    }
}
