//! The inboxes on disk: after any history the store brings back what the notifier had.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use vitalbridge::clock::{Mono, Stamp, Wall};
use vitalbridge::command::NewNotification;
use vitalbridge::event::{
    Activation, AlertChange, AlertEvent, AlertKind, Event, EventBody, InboxChange, NotificationKind, Preferences,
    Presence, Priority, Signal, SignalPresence,
};
use vitalbridge::ids::{AlertId, Epoch};
use vitalbridge::notifier::{MAX_WAITING, Notifier, Saved, SavedPerson, Sees, Sent};
use vitalbridge::patient::Patient;
use vitalbridge::store::{self, StoreOptions};
use vitalbridge::vitals::Mode;

const DEADLINE: Duration = Duration::from_secs(20);

fn at(seconds: u64) -> Stamp {
    let wall = Wall(1_800_000_000_000 + i64::try_from(seconds).unwrap() * 1000);
    Stamp { mono: Mono::from_millis(seconds * 1000), wall }
}

fn alert(number: u64, change: AlertChange, priority: Priority) -> AlertEvent {
    let signal = Signal { activation: Activation::On, presence: SignalPresence::On };
    AlertEvent {
        alert: AlertId(Uuid::from_u64_pair(1, number)),
        change,
        patient: Some("P-1".parse().unwrap()),
        device: None,
        rule: "rule".parse().unwrap(),
        kind: AlertKind::Physiological,
        priority,
        metric: None,
        value: None,
        limit: String::new(),
        message: "It's \"low\"".to_owned(),
        presence: Presence::True,
        audio: signal,
        visual: signal,
        onset: Wall(0),
        announced: Wall(0),
        paused_until: None,
        hidden_by: None,
        recurrence: 0,
        by: None,
        end_reason: None,
        escalated: 0,
        mode: Mode::Test,
    }
}

fn new(random: &mut fastrand::Rng, step: u64) -> NewNotification {
    let at = random.bool().then(|| at(step + random.u64(..200)).wall);
    NewNotification {
        kind: [NotificationKind::System, NotificationKind::MedicationReminder][random.usize(..2)],
        users: vec![format!("u{}", random.u8(..6))],
        roles: if random.bool() { vec!["nurse".to_owned()] } else { Vec::new() },
        patient: random.bool().then(|| "P-1".parse().unwrap()),
        title: "t".to_owned(),
        message: "m".to_owned(),
        priority: [Priority::Low, Priority::Medium, Priority::High][random.usize(..3)],
        at,
        expires: random.bool().then(|| self::at(step + 1 + random.u64(..400)).wall),
        // A name comes once: the pipeline knows the others.
        correlation_id: random.bool().then(|| step.to_string()),
    }
}

/// One thing that happens, and what is published of it.
fn happen(notifier: &mut Notifier, random: &mut fastrand::Rng, step: u64, scheduled: &mut Vec<Uuid>) -> Vec<EventBody> {
    let (now, user) = (at(step), format!("u{}", random.u8(..4)));
    match random.u8(..16) {
        0 => notifier.on_listening(random.u64(..9), &user, "nurse", Sees::Everything, now),
        1 => notifier.on_listening(
            random.u64(..9),
            &user,
            "viewer",
            Sees::Only(vec!["alerts/P-1".parse().unwrap()]),
            now,
        ),
        2 => {
            let mute = NotificationKind::ALL.iter().copied().filter(|_| random.u8(..4) == 0).collect();
            notifier.prefer(&user, Preferences { mute }).unwrap()
        }
        // Now and then, so that inboxes run over.
        3 if random.u8(..8) == 0 => {
            let letters = notifier.waiting(&user, &Sees::Everything, |_| true, now.wall);
            let ids: Vec<Uuid> = letters.iter().map(|letter| letter.notification.id).collect();
            notifier.on_delivered(&user, &ids[..random.usize(..=ids.len())])
        }
        4 => notifier.on_time(now),
        5 if !scheduled.is_empty() => {
            let id = scheduled.swap_remove(random.usize(..scheduled.len()));
            notifier.withdraw(id, "otto", |_| true).unwrap_or_default()
        }
        6..9 => match notifier.send(new(random, step), "otto", |_| true, now) {
            Ok(Sent { id, events }) => {
                if matches!(events[0], EventBody::Inbox(InboxChange::Scheduled { .. })) {
                    scheduled.push(id);
                }
                events
            }
            _ => Vec::new(),
        },
        _ => {
            let change = if random.u8(..4) == 0 { AlertChange::End } else { AlertChange::Update };
            let priority = [Priority::Low, Priority::Medium, Priority::High][random.usize(..3)];
            let event = alert(random.u64(..400), change, priority);
            let mut events = notifier.on_alert(&event, now);
            events.insert(0, EventBody::Alert(event));
            events
        }
    }
}

/// In one order, and without people of whom nothing is known.
fn sorted(mut saved: Saved) -> Saved {
    saved.people.retain(|_, person| *person != SavedPerson::default());
    saved.waiting.values_mut().for_each(|users| users.sort());
    saved.scheduled.sort_by_key(|reminder| reminder.id);
    saved.requests.clear();
    saved
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_brings_back_what_was_there_after_any_history() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().unwrap();
    let patients = [Patient {
        id: "P-1".parse().unwrap(),
        name: "P-1".to_owned(),
        bed: "1".to_owned(),
        ward: "a".parse().unwrap(),
        mode: Mode::Test,
    }];
    let (mut step, mut most, mut dropped, mut scheduled) = (0, 0, 0, Vec::new());
    let mut before = Saved::default();
    for run in 0..8 {
        let opened =
            store::open(dir.path(), &StoreOptions::default(), Epoch::from_bits(run), "boot", at(step)).unwrap();
        assert_eq!(sorted(opened.inboxes.clone()), sorted(before), "seed {seed}, run {run}");
        let mut notifier = Notifier::new(&patients, opened.inboxes, seed.wrapping_add(run));
        let stop = CancellationToken::new();
        let mut writer = tokio::task::JoinSet::new();
        writer.spawn(opened.writer.run(stop.clone()));
        let mut seq = opened.first_seq;
        for _ in 0..600 {
            step += 1;
            for body in happen(&mut notifier, &mut random, step, &mut scheduled) {
                match &body {
                    EventBody::Notification(notification) => notifier.on_published(notification.id, seq),
                    EventBody::Inbox(InboxChange::Dropped { .. }) => dropped += 1,
                    _ => {}
                }
                let event = Event { epoch: opened.epoch.clone(), seq, at: at(step), body };
                opened.handle.try_append(Arc::new(event)).unwrap();
                seq = seq.next();
            }
        }
        stop.cancel();
        tokio::time::timeout(DEADLINE, writer.join_next()).await.unwrap().unwrap().unwrap().unwrap();
        before = notifier.to_saved();
        most = most.max(before.messages.len());
    }
    assert!(most > MAX_WAITING && dropped > 0, "seed {seed}: the walk proves little: {most} {dropped}");
}
