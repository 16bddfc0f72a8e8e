//! The rooms in virtual time.

use serde_json::{Value as Json, json};

use super::*;
use crate::clock::Wall;

fn at(millis: u64) -> Stamp {
    Stamp { mono: Mono::from_millis(millis), wall: Wall(i64::try_from(millis).unwrap()) }
}

fn patterns(channels: &[&str]) -> Vec<Pattern> {
    channels.iter().map(|channel| channel.parse().unwrap()).collect()
}

/// What is told, as text: `presence r lena online [lena,otto]`.
fn told(moments: Vec<Moment>) -> Vec<String> {
    let text = |json: &Json| json.as_str().map_or_else(|| json.to_string(), str::to_owned);
    let line = |moment: Moment| {
        let data = json!(moment.data);
        let names = |name: &str| {
            let users = data[name].as_array().map(Vec::as_slice).unwrap_or_default();
            format!("[{}]", users.iter().map(text).collect::<Vec<_>>().join(","))
        };
        let of = format!("{} {} {}", moment.kind, moment.routes[0], moment.by);
        match moment.kind {
            MomentKind::Presence => format!("{of} {} {}", text(&data["status"]), names("members")),
            MomentKind::Typing => format!("{of} {}", data["is_typing"]),
            MomentKind::Read => format!("{of} {}", data["through"]),
            MomentKind::Activity => format!("{of} {}", names("viewers")),
        }
    };
    moments.into_iter().map(line).collect()
}

const NOTHING: [&str; 0] = [];

#[test]
fn several_tabs_are_one_person_and_a_pattern_makes_nobody_a_member() {
    let mut rooms = Rooms::default();
    let join = |rooms: &mut Rooms, listener, user, channels: &[&str]| {
        told(rooms.on_joined(listener, user, &patterns(channels), at(0)))
    };
    assert_eq!(join(&mut rooms, 1, "lena", &["chat/r"]), ["presence chat/r lena online [lena]"]);
    assert_eq!(join(&mut rooms, 1, "lena", &["chat/r"]), NOTHING, "the same tab again");
    assert_eq!(join(&mut rooms, 2, "lena", &["chat/r", "patient/+/+"]), NOTHING, "another tab");
    assert_eq!(join(&mut rooms, 3, "7", &["chat/r"]), ["presence chat/r 7 online [7,lena]"]);
    assert_eq!(join(&mut rooms, 4, "wall", &["chat/+", "#", "ward/w/#"]), NOTHING);
    assert_eq!(rooms.members("r"), Members { users: vec!["7".into(), "lena".into()], count: 2 });
    assert_eq!((rooms.connections_of("lena"), rooms.connections_of("otto")), (vec![1, 2], vec![]));
    assert!(rooms.is_online("wall") && !rooms.is_online("otto"));
    // A user of digits is a number, as older clients expect it.
    let moments = rooms.on_joined(5, "otto", &patterns(&["chat/r"]), at(0));
    assert_eq!(json!(moments[0].data)["members"], json!([7, "lena", "otto"]));

    let leave = |rooms: &mut Rooms, listener| told(rooms.on_unsubscribed(listener, &patterns(&["chat/r"]), at(1)));
    assert_eq!(leave(&mut rooms, 1), NOTHING, "the other tab is there");
    assert_eq!(leave(&mut rooms, 1), NOTHING);
    assert_eq!(leave(&mut rooms, 2), ["presence chat/r lena offline [7,otto]"]);
}

#[test]
fn a_lost_connection_that_comes_back_in_time_does_not_flicker() {
    let mut rooms = Rooms::default();
    rooms.on_joined(1, "lena", &patterns(&["chat/r"]), at(0));
    assert_eq!(told(rooms.on_left(1, at(1000))), NOTHING);
    assert!(rooms.is_online("lena"));
    assert_eq!(rooms.next_deadline(), Some(at(6000).mono));
    assert_eq!(told(rooms.on_deadline(at(5999))), NOTHING);
    assert_eq!(told(rooms.on_joined(2, "lena", &patterns(&["chat/r"]), at(5999))), NOTHING);
    assert_eq!(rooms.next_deadline(), None);
    assert_eq!(told(rooms.on_deadline(at(60_000))), NOTHING);

    rooms.on_left(2, at(60_000));
    assert_eq!(told(rooms.on_deadline(at(65_000))), ["presence chat/r lena offline []"]);
    assert!(!rooms.is_online("lena"));
    assert_eq!((rooms.members("r"), rooms.next_deadline()), (Members::default(), None));
    assert!(rooms.members.is_empty() && rooms.connections.is_empty(), "nothing is left of it");
}

#[test]
fn typing_ends_by_itself_by_word_by_a_message_and_with_its_writer() {
    let mut rooms = Rooms::default();
    rooms.on_joined(1, "lena", &patterns(&["chat/r"]), at(0));
    let (on, off) = (["typing chat/r lena true"], ["typing chat/r lena false"]);
    assert_eq!(told(rooms.on_typing("r", "lena", true, at(0))), on);
    assert_eq!(told(rooms.on_typing("r", "lena", true, at(3000))), on, "goes on");
    assert_eq!(told(rooms.on_deadline(at(7999))), NOTHING);
    assert_eq!(told(rooms.on_deadline(at(8000))), off);
    assert_eq!(told(rooms.on_deadline(at(9000))), NOTHING);

    rooms.on_typing("r", "lena", true, at(9000));
    assert_eq!(told(rooms.on_typing("r", "lena", false, at(9001))), off);
    assert_eq!(told(rooms.on_typing("r", "lena", false, at(9002))), NOTHING);

    rooms.on_typing("r", "lena", true, at(10_000));
    assert_eq!(told(rooms.on_message(Uuid::from_u128(1), "r", "lena", Seq(5), at(10_001))), off);

    rooms.on_typing("r", "lena", true, at(11_000));
    let left = told(rooms.on_unsubscribed(1, &patterns(&["chat/r"]), at(11_001)));
    assert_eq!(left, [off[0], "presence chat/r lena offline []"]);
    assert_eq!(rooms.next_deadline(), None);
}

#[test]
fn only_so_many_type_at_once() {
    let mut rooms = Rooms::default();
    for number in 0..MAX_TYPING {
        assert_eq!(rooms.on_typing("r", &number.to_string(), true, at(0)).len(), 1);
    }
    assert_eq!(told(rooms.on_typing("r", "one more", true, at(0))), NOTHING);
    assert_eq!(rooms.on_typing("r", "0", true, at(1)).len(), 1, "who types already goes on");
    assert_eq!(rooms.on_deadline(at(5000)).len(), MAX_TYPING - 1);
    assert_eq!(rooms.on_typing("r", "one more", true, at(5000)).len(), 1);
}

#[test]
fn a_place_in_a_room_goes_forward_only_and_the_oldest_is_forgotten() {
    let mut rooms = Rooms::default();
    assert_eq!(told(rooms.on_read("r", "lena", Seq(5), at(0))), ["conversation_read chat/r lena 5"]);
    assert_eq!(told(rooms.on_read("r", "lena", Seq(5), at(0))), NOTHING);
    assert_eq!(told(rooms.on_read("r", "lena", Seq(4), at(0))), NOTHING);
    assert_eq!((rooms.has_read("r", "lena"), rooms.has_read("r", "otto")), (Some(Seq(5)), None));
    let now = rooms.now(&patterns(&["chat/r", "alerts/+"]), "lena");
    assert_eq!(now.members.into_iter().collect::<Vec<_>>(), [("r".into(), (Members::default(), Some(Seq(5))))]);
    for number in 0..MAX_READ_MARKS {
        rooms.on_read(&number.to_string(), "lena", Seq(6), at(0));
    }
    assert_eq!((rooms.has_read("r", "lena"), rooms.read.len()), (None, MAX_READ_MARKS));
}

#[test]
fn who_looks_at_a_patient_is_told_with_all_who_do() {
    let mut rooms = Rooms::default();
    let patient = |id: &str| Some(id.parse().unwrap());
    for (listener, user) in [(1, "lena"), (2, "lena"), (3, "otto")] {
        rooms.on_joined(listener, user, &[], at(0));
    }
    assert_eq!(told(rooms.on_looks_at(1, patient("P-1"), at(0))), ["activity patient/P-1/activity lena [lena]"]);
    assert_eq!(told(rooms.on_looks_at(1, patient("P-1"), at(0))), NOTHING);
    assert_eq!(told(rooms.on_looks_at(3, patient("P-1"), at(0))), ["activity patient/P-1/activity otto [lena,otto]"]);
    let moved = told(rooms.on_looks_at(1, patient("P-2"), at(0)));
    assert_eq!(moved, ["activity patient/P-1/activity lena [otto]", "activity patient/P-2/activity lena [lena]"]);
    assert_eq!(told(rooms.on_looks_at(1, None, at(0))), ["activity patient/P-2/activity lena []"]);
    assert_eq!(told(rooms.on_left(3, at(0))), ["activity patient/P-1/activity otto []"]);
    assert_eq!(told(rooms.on_looks_at(9, patient("P-1"), at(0))), NOTHING, "nobody");
}

#[test]
fn a_message_is_known_for_a_day_and_so_many_are_remembered() {
    let mut rooms = Rooms::default();
    let (id, day) = (Uuid::from_u128(1), SAME_MESSAGE_MS);
    assert_eq!(rooms.sent(id, Wall(0)), Sent::Never);
    rooms.remember(id, Seq(7), Wall(0));
    assert_eq!(rooms.sent(id, Wall(day - 1)), Sent::Lately(Seq(7)));
    assert_eq!(rooms.sent(id, Wall(day)), Sent::LongAgo);
    for number in 0..MAX_REMEMBERED {
        let number = u64::try_from(number).unwrap();
        rooms.remember(Uuid::from_u64_pair(1, number), Seq(10 + number), Wall(0));
    }
    assert_eq!(rooms.sent(id, Wall(0)), Sent::Never);
    assert_eq!((rooms.sent.len(), rooms.by_age.len()), (MAX_REMEMBERED, MAX_REMEMBERED));
}

#[test]
fn the_same_words_under_the_same_name_are_one_message_and_nothing_else_is() {
    let id = id_of("lena", "1", "r", "hello");
    assert_eq!(id, id_of("lena", "1", "r", "hello"));
    for other in [
        id_of("otto", "1", "r", "hello"),
        id_of("lena", "2", "r", "hello"),
        id_of("lena", "1", "s", "hello"),
        id_of("lena", "1", "r", "hello!"),
        id_of("len", "a1", "r", "hello"),
    ] {
        assert_ne!(id, other);
    }
}

#[test]
fn a_newer_moment_replaces_an_older_one_only_where_it_says_it_all() {
    let mut rooms = Rooms::default();
    let mut join = |listener, user, room: &str| {
        rooms.on_joined(listener, user, &patterns(&[&format!("chat/{room}")]), at(0)).remove(0)
    };
    let (lena, otto, elsewhere) = (join(1, "lena", "r"), join(2, "otto", "r"), join(3, "otto", "s"));
    assert!(otto.replaces(&lena), "it has all members");
    assert!(!elsewhere.replaces(&lena));
    let typing = |rooms: &mut Rooms, user: &str| rooms.on_typing("r", user, true, at(0)).remove(0);
    let (lena, otto) = (typing(&mut rooms, "lena"), typing(&mut rooms, "otto"));
    assert!(!otto.replaces(&lena) && lena.replaces(&lena));
}
