//! Who is told what, what waits, and what is sent later: scripts against the notifier, without a clock or a disk.

use std::collections::BTreeSet;

use super::*;
use crate::clock::Wall;
use crate::command::NewNotification;
use crate::event::{Activation, AlertChange, AlertKind, Presence, Signal, SignalPresence};
use crate::vitals::{Metric, Mode};

/// Noon of a day.
const NOON: i64 = 1_800_000_000_000;

fn at(seconds: i64) -> Stamp {
    Stamp { mono: Mono::from_millis(1_000_000 + seconds.unsigned_abs() * 1000), wall: Wall(NOON + seconds * 1000) }
}

fn patients() -> Vec<Patient> {
    let patient = |id: &str, ward: &str| Patient {
        id: id.parse().unwrap(),
        name: id.to_owned(),
        bed: String::new(),
        ward: ward.parse().unwrap(),
        mode: Mode::Real,
    };
    vec![patient("P-1", "a"), patient("P-2", "b")]
}

fn only(patterns: &[&str]) -> Sees {
    Sees::Only(patterns.iter().map(|pattern| pattern.parse().unwrap()).collect())
}

/// A notifier with users that have listened and gone again.
fn notifier(people: &[(&str, &str, Sees)]) -> Notifier {
    let mut notifier = Notifier::new(&patients(), Saved::default(), 1);
    for (number, (user, role, sees)) in (0..).zip(people) {
        assert_eq!(notifier.on_listening(number, user, role, sees.clone(), at(0)).len(), 1);
        notifier.on_left(number);
    }
    notifier
}

fn nurse(user: &str) -> Notifier {
    notifier(&[(user, "nurse", Sees::Everything)])
}

fn alert(id: u128, patient: Option<&str>, priority: Priority) -> AlertEvent {
    let signal = Signal { activation: Activation::On, presence: SignalPresence::On };
    AlertEvent {
        alert: AlertId(Uuid::from_u128(id)),
        change: AlertChange::Start,
        patient: patient.map(|patient| patient.parse().unwrap()),
        device: None,
        rule: "rule".parse().unwrap(),
        kind: AlertKind::Physiological,
        priority,
        metric: Some(Metric::BloodPressure),
        value: None,
        limit: String::new(),
        message: "Systolic 182 mmHg, above 160 mmHg".to_owned(),
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
        mode: Mode::Real,
    }
}

fn new(kind: NotificationKind) -> NewNotification {
    NewNotification {
        kind,
        users: vec!["lena".to_owned()],
        roles: Vec::new(),
        patient: None,
        title: "Metoprolol".to_owned(),
        message: "47.5 mg".to_owned(),
        priority: Priority::Medium,
        at: None,
        expires: None,
        correlation_id: None,
    }
}

/// The notifications among events.
fn said(events: &[EventBody]) -> Vec<&Notification> {
    let mut found = Vec::new();
    for event in events {
        if let EventBody::Notification(notification) = event {
            found.push(notification);
        }
    }
    found
}

fn told(events: &[EventBody]) -> Vec<Vec<String>> {
    said(events).iter().map(|notification| notification.users.clone()).collect()
}

fn waiting(notifier: &mut Notifier, user: &str) -> Vec<Arc<Notification>> {
    let letters = notifier.waiting(user, &Sees::Everything, |_| true, at(0).wall);
    letters.into_iter().map(|letter| letter.notification).collect()
}

#[test]
fn an_alert_is_told_when_it_begins_to_show_and_when_its_priority_rises() {
    use Priority::{High, Info, Low, Medium};
    let hider = Some(AlertId(Uuid::from_u128(9)));
    for (name, steps) in [
        ("a start", &[(AlertChange::Start, Medium, None, true)][..]),
        ("info asks for nothing", &[(AlertChange::Start, Info, None, false)]),
        ("once", &[(AlertChange::Start, Medium, None, true), (AlertChange::Update, Medium, None, false)]),
        ("a rise", &[(AlertChange::Start, Low, None, true), (AlertChange::Escalate, High, None, true)]),
        (
            "worse, of the same priority",
            &[(AlertChange::Start, High, None, true), (AlertChange::Escalate, High, None, true)],
        ),
        (
            "each recurrence, and not what follows it",
            &[
                (AlertChange::Start, High, None, true),
                (AlertChange::Latch, High, None, false),
                (AlertChange::Recur, High, None, true),
                (AlertChange::Update, High, None, false),
                (AlertChange::Recur, High, None, true),
            ],
        ),
        (
            "worse while hidden, then out",
            &[
                (AlertChange::Start, Medium, None, true),
                (AlertChange::Escalate, Medium, hider, false),
                (AlertChange::Update, Medium, hider, false),
                (AlertChange::Update, Medium, None, true),
                (AlertChange::Update, Medium, None, false),
            ],
        ),
        (
            "worse while hidden, and somebody knows",
            &[
                (AlertChange::Start, Medium, None, true),
                (AlertChange::Escalate, Medium, hider, false),
                (AlertChange::Acknowledge, Medium, hider, false),
                (AlertChange::Update, Medium, None, false),
            ],
        ),
        ("info that comes back", &[(AlertChange::Start, Info, None, false), (AlertChange::Recur, Info, None, false)]),
        (
            "a fall and a rise to where it was",
            &[
                (AlertChange::Start, High, None, true),
                (AlertChange::Update, Low, None, false),
                (AlertChange::Update, High, None, false),
            ],
        ),
        ("hidden, then out", &[(AlertChange::Start, Medium, hider, false), (AlertChange::Update, Medium, None, true)]),
        (
            "an end, then another life",
            &[
                (AlertChange::Start, Medium, None, true),
                (AlertChange::End, Medium, None, false),
                (AlertChange::Start, Medium, None, true),
            ],
        ),
    ] {
        let mut notifier = nurse("lena");
        for (number, (change, priority, hidden_by, expected)) in steps.iter().enumerate() {
            let event = AlertEvent { change: *change, hidden_by: *hidden_by, ..alert(1, Some("P-1"), *priority) };
            let events = notifier.on_alert(&event, at(1));
            assert_eq!(said(&events).len(), usize::from(*expected), "{name}, step {number}");
        }
    }
}

#[test]
fn a_message_about_an_alert_says_whose_it_is_and_what_it_says() {
    let mut notifier = nurse("lena");
    let events = notifier.on_alert(&AlertEvent { mode: Mode::Demo, ..alert(1, Some("P-1"), Priority::High) }, at(1));
    let notification = said(&events)[0];
    assert_eq!(notification.title, "DEMO: Blood Pressure Alert");
    assert_eq!(notification.message, "P-1: Systolic 182 mmHg, above 160 mmHg");
    assert_eq!((notification.priority, notification.created), (Priority::High, at(1).wall));
}

#[test]
fn who_is_told_goes_by_the_tokens_in_use_and_without_them_by_the_last() {
    let people = [
        ("all", "nurse", Sees::Everything),
        ("one", "nurse", only(&["patient/P-1/#", "alerts/P-1"])),
        ("other", "nurse", only(&["alerts/P-2"])),
        ("ward", "nurse", only(&["ward/a/#"])),
        ("none", "viewer", only(&["system"])),
    ];
    let mut notifier = notifier(&people);
    assert_eq!(told(&notifier.on_alert(&alert(1, Some("P-1"), Priority::Low), at(1))), [["all", "one", "ward"]]);
    assert_eq!(told(&notifier.on_alert(&alert(2, Some("P-2"), Priority::Low), at(1))), [["all", "other"]]);
    assert_eq!(told(&notifier.on_alert(&alert(3, None, Priority::Low), at(1))), [["all"]]);
    // Two sessions of one user: what either covers; then the one that is left; then the last token.
    notifier.on_listening(90, "other", "nurse", only(&["alerts/P-1"]), at(2));
    notifier.on_listening(91, "other", "nurse", only(&["alerts/P-2"]), at(2));
    let mut alerts = 10;
    let mut is_told = |notifier: &mut Notifier, patient| {
        alerts += 1;
        told(&notifier.on_alert(&alert(alerts, Some(patient), Priority::Low), at(3)))[0].contains(&"other".to_owned())
    };
    assert!(is_told(&mut notifier, "P-1") && is_told(&mut notifier, "P-2"));
    notifier.on_left(91);
    assert!(is_told(&mut notifier, "P-1") && !is_told(&mut notifier, "P-2"));
    notifier.on_left(90);
    assert!(!is_told(&mut notifier, "P-1") && is_told(&mut notifier, "P-2"));
}

#[test]
fn a_muted_kind_is_kept_from_the_user_and_priority_high_is_not() {
    let mut notifier = nurse("lena");
    let mute: BTreeSet<_> = NotificationKind::ALL.iter().copied().collect();
    notifier.prefer("lena", Preferences { mute }).unwrap();
    assert!(notifier.on_alert(&alert(1, Some("P-1"), Priority::Medium), at(1)).is_empty());
    assert_eq!(said(&notifier.on_alert(&alert(2, Some("P-1"), Priority::High), at(1))).len(), 1);
    // The muted one is told once it has become a high one.
    assert_eq!(said(&notifier.on_alert(&alert(1, Some("P-1"), Priority::High), at(2))).len(), 1);
    let refused = notifier.send(new(NotificationKind::System), "otto", |_| true, at(3)).unwrap_err();
    assert_eq!(refused.code, "unknown_user");
    let urgent = NewNotification { priority: Priority::High, ..new(NotificationKind::System) };
    assert!(matches!(notifier.send(urgent, "otto", |_| true, at(3)), Ok(Sent { .. })));
}

#[test]
fn a_message_waits_until_a_client_has_it_and_then_no_more() {
    let mut notifier = notifier(&[("lena", "nurse", Sees::Everything), ("otto", "nurse", Sees::Everything)]);
    notifier.on_alert(&alert(1, Some("P-1"), Priority::High), at(1));
    let id = waiting(&mut notifier, "lena")[0].id;
    assert_eq!(waiting(&mut notifier, "lena").len(), 1, "being handed over is not having it");
    let changes = notifier.on_delivered("lena", &[id, Uuid::from_u128(5)]);
    let expected = InboxChange::Delivered { user: "lena".to_owned(), ids: vec![id] };
    assert_eq!(changes, [EventBody::Inbox(expected)]);
    assert!(notifier.on_delivered("lena", &[id]).is_empty(), "a second tab has it too");
    assert!(waiting(&mut notifier, "lena").is_empty());
    assert_eq!(waiting(&mut notifier, "otto").len(), 1);
    assert!(notifier.on_delivered("nobody", &[id]).is_empty());
}

#[test]
fn a_token_that_covers_less_is_not_given_what_waits_about_others() {
    let mut notifier = nurse("lena");
    notifier.on_alert(&alert(1, Some("P-1"), Priority::Low), at(1));
    notifier.on_alert(&alert(2, Some("P-2"), Priority::Low), at(1));
    let letters = notifier.waiting("lena", &only(&["ward/b/#"]), |_| false, at(2).wall);
    let found: Vec<_> =
        letters.iter().map(|it| (it.notification.alert.unwrap().0.as_u128(), it.alert_stands)).collect();
    assert_eq!(found, [(2, Some(false))]);
}

#[test]
fn a_full_inbox_drops_the_oldest_of_the_lowest_priority_and_says_how_many() {
    let mut notifier = nurse("lena");
    let most = u128::try_from(MAX_WAITING).unwrap();
    notifier.on_alert(&alert(1, Some("P-1"), Priority::High), at(1));
    for id in 2..=most {
        notifier.on_alert(&alert(id, Some("P-1"), Priority::Low), at(1));
    }
    let of = |notifier: &mut Notifier| -> Vec<u128> {
        waiting(notifier, "lena").iter().filter_map(|it| it.alert).map(|alert| alert.0.as_u128()).collect()
    };
    assert_eq!(of(&mut notifier).len(), MAX_WAITING);
    // One too many: the oldest low one goes, the older high one stays.
    let events = notifier.on_alert(&alert(most + 1, Some("P-1"), Priority::Medium), at(2));
    let EventBody::Inbox(InboxChange::Dropped { untold, .. }) = &events[1] else { panic!("{events:?}") };
    assert_eq!((untold.count, untold.high), (1, 0));
    assert_eq!(of(&mut notifier)[..2], [1, 3]);
    let notice = waiting(&mut notifier, "lena")[0].clone();
    assert!(notice.message.starts_with("1 message was dropped: "), "{}", notice.message);
    assert_eq!((notice.kind, notice.priority), (NotificationKind::System, Priority::Low));
    // The client has read that; what is dropped from now on is another notice.
    notifier.on_delivered("lena", &[notice.id]);
    // Nothing but high ones is left at last, and the first of them that goes is said to be one.
    for id in 1000..1000 + most {
        notifier.on_alert(&alert(id, Some("P-1"), Priority::High), at(3));
    }
    let again = waiting(&mut notifier, "lena")[0].clone();
    assert_ne!(again.id, notice.id);
    assert!(again.message.starts_with("100 messages were dropped, 1 of them of high priority: "), "{}", again.message);
    assert_eq!(again.priority, Priority::High);
    assert_eq!(waiting(&mut notifier, "lena").len(), MAX_WAITING + 1);
}

#[test]
fn what_is_dropped_behind_a_notice_that_was_handed_over_needs_another_notice() {
    let mut notifier = nurse("lena");
    let fill = |notifier: &mut Notifier, from: u128| {
        for id in from..=from + u128::try_from(MAX_WAITING).unwrap() {
            notifier.on_alert(&alert(id, Some("P-1"), Priority::Low), at(1));
        }
    };
    fill(&mut notifier, 1);
    let first = waiting(&mut notifier, "lena")[0].id;
    notifier.on_alert(&alert(5000, Some("P-1"), Priority::Low), at(2));
    // The client has the first notice by now, and not the second.
    assert!(notifier.on_delivered("lena", &[first]).is_empty());
    let second = waiting(&mut notifier, "lena")[0].clone();
    assert!(second.id != first && second.message.starts_with("1 message was dropped"), "{second:?}");
}

#[test]
fn a_name_of_the_senders_gives_the_message_its_identity() {
    let mut notifier = nurse("lena");
    let named = || NewNotification { correlation_id: Some("r-1".to_owned()), ..new(NotificationKind::System) };
    let Ok(Sent { id, events }) = notifier.send(named(), "otto", |_| true, at(0)) else { panic!() };
    assert_eq!((said(&events)[0].id, said(&events)[0].by.as_deref()), (id_of("otto", "r-1"), Some("otto")));
    assert_eq!(id, id_of("otto", "r-1"));
    assert_ne!(id_of("ab", "c"), id_of("a", "bc"));
}

#[test]
fn a_reminder_is_sent_at_its_time_of_day_whatever_the_clock_does() {
    let later = |seconds| NewNotification { at: Some(at(seconds).wall), ..new(NotificationKind::MedicationReminder) };
    let mut notifier = nurse("lena");
    let Ok(Sent { id, events }) = notifier.send(later(60), "otto", |_| true, at(0)) else { panic!() };
    assert!(matches!(&events[..], [EventBody::Inbox(InboxChange::Scheduled { reminder })] if reminder.id == id));
    assert!(notifier.on_time(at(59)).is_empty());
    // The clock is set back by an hour: it waits. It is set forward: it is due.
    let stepped = |mono: i64, wall: i64| Stamp { mono: at(mono).mono, wall: at(wall).wall };
    assert!(notifier.on_time(stepped(61, -3600)).is_empty());
    let events = notifier.on_time(stepped(62, 3600));
    assert_eq!((said(&events)[0].id, told(&events)), (id, vec![vec!["lena".to_owned()]]));
    assert!(notifier.on_time(stepped(63, 0)).is_empty(), "set back again: it was sent");
    assert!(notifier.on_time(stepped(64, 100)).is_empty());
}

#[test]
fn a_reminder_that_came_too_late_is_told_to_who_sent_it() {
    let mut notifier = nurse("lena");
    let expires = Some(at(120).wall);
    let late = NewNotification { at: Some(at(60).wall), expires, ..new(NotificationKind::MedicationReminder) };
    assert!(notifier.send(late, "otto", |_| true, at(0)).is_ok());
    let events = notifier.on_time(at(121));
    assert_eq!(told(&events), [["otto"]]);
    assert!(said(&events)[0].message.contains("expired"), "{events:?}");
    assert!(matches!(events[0], EventBody::Inbox(InboxChange::Withdrawn { .. })));
}

#[test]
fn what_has_expired_is_not_given_and_goes() {
    let mut notifier = nurse("lena");
    let short = NewNotification { expires: Some(at(60).wall), ..new(NotificationKind::System) };
    assert!(notifier.send(short, "otto", |_| true, at(0)).is_ok());
    let count =
        |notifier: &mut Notifier, now: i64| notifier.waiting("lena", &Sees::Everything, |_| true, at(now).wall).len();
    assert_eq!((count(&mut notifier, 59), count(&mut notifier, 60)), (1, 0));
    assert!(
        matches!(&notifier.on_time(at(61))[..], [EventBody::Inbox(InboxChange::Expired { ids })] if ids.len() == 1)
    );
    assert_eq!(count(&mut notifier, 0), 0);
    let gone = NewNotification { expires: Some(at(0).wall), ..new(NotificationKind::System) };
    assert_eq!(notifier.send(gone, "otto", |_| true, at(0)).unwrap_err().code, "expired");
}

#[test]
fn a_message_is_for_users_roles_and_whoever_sees_the_patient() {
    let people = [
        ("anna", "clinician", Sees::Everything),
        ("lena", "nurse", only(&["alerts/P-1"])),
        ("otto", "nurse", only(&["alerts/P-2"])),
    ];
    let about = |patient: &str| Some(patient.parse().unwrap());
    for (users, roles, patient, expected) in [
        (&["lena", "new"][..], &[][..], None, &["lena", "new"][..]),
        (&[], &["nurse"], None, &["lena", "otto"]),
        (&["anna"], &["nurse"], about("P-1"), &["anna", "lena"]),
        (&[], &[], about("P-2"), &["anna", "otto"]),
        (&[], &["clinician"], about("P-2"), &["anna"]),
    ] {
        let mut notifier = notifier(&people);
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        let (users, roles) = (owned(users), owned(roles));
        let new = NewNotification { users, roles, patient, ..new(NotificationKind::System) };
        let Ok(Sent { events, .. }) = notifier.send(new.clone(), "x", |_| true, at(0)) else { panic!("{new:?}") };
        assert_eq!(told(&events), [expected], "{new:?}");
    }
}

#[test]
fn who_may_send_is_who_may_publish_on_the_patients_alerts_or_to_each_user() {
    let mut notifier = nurse("lena");
    let about =
        |patient: &str| NewNotification { patient: Some(patient.parse().unwrap()), ..new(NotificationKind::System) };
    let roles = NewNotification { roles: vec!["nurse".to_owned()], ..new(NotificationKind::System) };
    for (new, allowed, expected) in [
        (about("P-1"), "alerts/P-1", None),
        (about("P-1"), "ward/a/alerts/P-1", None),
        (about("P-1"), "alerts/P-2", Some("permission_denied")),
        (about("P-9"), "alerts/P-9", Some("unknown_patient")),
        (new(NotificationKind::System), "notifications/lena", None),
        (new(NotificationKind::System), "alerts/P-1", Some("permission_denied")),
        (roles, "notifications/lena", Some("permission_denied")),
    ] {
        let sent = notifier.send(new.clone(), "otto", |routes| routes.contains(&allowed.to_owned()), at(0));
        assert_eq!(sent.err().map(|refused| refused.code), expected, "{new:?} {allowed}");
    }
}

#[test]
fn a_scheduled_message_is_taken_back_by_who_sent_it_or_may_send_it() {
    let mut notifier = nurse("lena");
    let mut schedule = || {
        let later = NewNotification { at: Some(at(60).wall), ..new(NotificationKind::System) };
        let Ok(Sent { id, .. }) = notifier.send(later, "otto", |_| true, at(0)) else { panic!() };
        id
    };
    let (first, second) = (schedule(), schedule());
    assert_eq!(notifier.withdraw(first, "anna", |_| false).unwrap_err().code, "unknown_notification");
    assert!(notifier.withdraw(first, "otto", |_| false).is_ok());
    assert_eq!(notifier.withdraw(first, "otto", |_| true).unwrap_err().code, "unknown_notification");
    assert!(notifier.withdraw(second, "anna", |_| true).is_ok());
    assert!(notifier.on_time(at(61)).is_empty());
}

#[test]
fn an_escalation_calls_those_it_names_who_see_the_patient() {
    let people = [
        ("anna", "clinician", Sees::Everything),
        ("lena", "nurse", Sees::Everything),
        ("otto", "clinician", only(&["alerts/P-2"])),
    ];
    let mut notifier = notifier(&people);
    let high = alert(1, Some("P-1"), Priority::High);
    notifier.on_alert(&high, at(1));
    let owned = |text: &str| vec![text.to_owned()];
    assert_eq!(told(&notifier.call(&high, &[], &owned("clinician"), at(2))), [["anna"]]);
    assert_eq!(told(&notifier.call(&high, &owned("lena"), &[], at(3))), [["lena"]]);
    assert!(notifier.call(&high, &owned("otto"), &owned("admin"), at(4)).is_empty());
    assert_eq!(waiting(&mut notifier, "lena").len(), 2, "each call is a message of its own");
    // Who does not want to hear of alerts is called all the same.
    let mute = [NotificationKind::HealthAlert].into();
    notifier.prefer("lena", Preferences { mute }).unwrap();
    let medium = alert(2, Some("P-1"), Priority::Medium);
    assert_eq!(told(&notifier.on_alert(&medium, at(5))), [["anna"]]);
    assert_eq!(told(&notifier.call(&medium, &owned("lena"), &[], at(6))), [["lena"]]);
}

#[test]
fn one_user_too_many_makes_the_one_forgotten_who_is_missed_least() {
    let mut notifier = Notifier::new(&patients(), Saved::default(), 1);
    for number in 0..MAX_PEOPLE {
        let now = at(i64::try_from(number).unwrap());
        notifier.on_listening(u64::try_from(number).unwrap(), &format!("u{number}"), "nurse", Sees::Everything, now);
    }
    notifier.on_left(0);
    notifier.on_left(1);
    // u0 was away longest, but something of priority high waits for him.
    let urgent =
        NewNotification { users: vec!["u0".to_owned()], priority: Priority::High, ..new(NotificationKind::System) };
    assert!(notifier.send(urgent, "x", |_| true, at(500)).is_ok());
    let events = notifier.on_listening(9999, "late", "nurse", Sees::Everything, at(600));
    assert_eq!(events[0], EventBody::Inbox(InboxChange::Forgotten { user: "u1".to_owned() }));
    assert_eq!(notifier.people.len(), MAX_PEOPLE);
}

#[test]
fn what_is_bounded_stays_bounded_in_a_random_walk_and_nothing_arrives_twice() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let users = ["a", "b", "c"];
    let mut notifier = notifier(&users.map(|user| (user, "nurse", Sees::Everything)));
    let (mut arrived, mut dropped, mut made) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for step in 0..20_000_u128 {
        let now = at(i64::try_from(step).unwrap());
        let user = users[random.usize(..users.len())];
        let events = if random.u8(..20) == 0 {
            let ids: Vec<Uuid> = waiting(&mut notifier, user).iter().map(|it| it.id).collect();
            let had = random.usize(..=ids.len());
            let events = notifier.on_delivered(user, &ids[..had]);
            if let [EventBody::Inbox(InboxChange::Delivered { ids, .. })] = &events[..] {
                for id in ids {
                    assert!(arrived.insert((user, *id)), "seed {seed}, step {step}: {id} arrived twice");
                }
            }
            events
        } else {
            let priority = [Priority::Low, Priority::Medium, Priority::High][random.usize(..3)];
            notifier.on_alert(&alert(step, Some("P-1"), priority), now)
        };
        for event in &events {
            match event {
                EventBody::Notification(it) => {
                    made.extend(users.iter().map(|user| (*user, it.id)));
                }
                EventBody::Inbox(InboxChange::Dropped { user, ids, .. }) => {
                    let user = users.iter().find(|known| *known == user).unwrap();
                    dropped.extend(ids.iter().map(|id| (*user, *id)));
                }
                _ => {}
            }
        }
        assert!(notifier.people.values().all(|person| person.waiting.len() <= MAX_WAITING), "seed {seed}, step {step}");
    }
    for user in users {
        let left = waiting(&mut notifier, user).into_iter().map(|it| (user, it.id));
        arrived.extend(left);
    }
    let lost: Vec<_> = made.iter().filter(|it| !arrived.contains(*it) && !dropped.contains(*it)).collect();
    assert!(lost.is_empty(), "seed {seed}: {} neither arrived nor were said to be dropped", lost.len());
    assert!(arrived.intersection(&dropped).next().is_none(), "seed {seed}");
    assert!(made.len() > 10_000 && dropped.len() > 100, "seed {seed}: the walk proves little");
}
