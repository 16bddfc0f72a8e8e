//! Checks `[ble]` and makes the form of it that Bluetooth sources work with.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use uuid::Uuid;

use super::ble::{
    AdvertField, Ble, EndsLink, Gatt, Glob, Match, PairMethod, Presence, Quirk, SensorKind, Speaks, Stored, TimeWrite,
    UserSlots,
};
use super::build::{Context, nearest, parse_duration};
use super::models::long_form;
use super::schema::{AdvertDoc, BleDoc, MatchDoc, ProfileDoc, StreamDoc};

/// Most ways to recognise one model.
const MAX_MATCHES: usize = 32;

/// Longest pause before the first subscription: a peer that waits longer has ended the link (ATT has 30 s for an answer).
const MAX_SETTLE: Duration = Duration::from_secs(10);

/// A stream that may be silent for so long measures now and then.
const EPISODIC_SILENCE: Duration = Duration::from_mins(1);

/// A number of 4 hexadecimal digits.
fn short(text: &str) -> Option<u16> {
    let is_hex = text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u16::from_str_radix(text, 16).ok()).flatten()
}

/// A 16-bit short form or a whole UUID.
fn uuid_of(text: &Spanned<String>, context: &mut Context<'_>) -> Option<Uuid> {
    let whole = || Uuid::try_parse(text.get_ref()).ok();
    let uuid = short(text.get_ref()).map(long_form).or_else(whole);
    if uuid.is_none() {
        context.problem(&text.span(), format!("`{}` is not a UUID or its 4 digit short form", text.get_ref()));
    }
    uuid
}

fn number_of(text: &Spanned<String>, context: &mut Context<'_>) -> Option<u16> {
    let number = short(text.get_ref());
    if number.is_none() {
        context.problem(&text.span(), format!("`{}` is not a number of 4 hexadecimal digits", text.get_ref()));
    }
    number
}

/// A word of a closed list.
struct Words<T: 'static> {
    what: &'static str,
    all: &'static [T],
    name: fn(T) -> &'static str,
}

impl<T: Copy> Words<T> {
    fn read(&self, text: &Spanned<String>, context: &mut Context<'_>) -> Option<T> {
        let found = self.all.iter().copied().find(|one| (self.name)(*one) == text.get_ref());
        if found.is_none() {
            let near = nearest(text.get_ref(), self.all.iter().map(|one| (self.name)(*one)));
            let message = format!("`{}` is not {}; the nearest is `{near}`", text.get_ref(), self.what);
            context.problem(&text.span(), message);
        }
        found
    }
}

const SENSORS: Words<SensorKind> = Words { what: "a sensor", all: SensorKind::ALL, name: |one| one.name() };
const QUIRKS: Words<Quirk> = Words { what: "a quirk", all: Quirk::ALL, name: |one| one.name() };
const PAIRINGS: Words<PairMethod> = Words { what: "a way to pair", all: PairMethod::ALL, name: |one| one.name() };
const TIMES: Words<TimeWrite> = Words { what: "a time to write", all: TimeWrite::ALL, name: |one| one.name() };
const STORES: Words<Stored> = Words { what: "a way of stored records", all: Stored::ALL, name: |one| one.name() };
const PRESENCES: Words<Presence> = Words { what: "a presence", all: Presence::ALL, name: |one| one.name() };
const ENDS: Words<EndsLink> = Words { what: "an end of a link", all: EndsLink::ALL, name: |one| one.name() };

pub(super) fn ble(spanned: &Spanned<BleDoc>, profile: &ProfileDoc, context: &mut Context<'_>) -> Option<Ble> {
    let (span, doc) = (spanned.span(), spanned.get_ref());
    let speaks = speaks(doc, &span, context);
    let silence = profile.link.as_ref().and_then(|link| parse_duration(link.get_ref().silence.get_ref()));
    let presence = match &doc.presence {
        Some(text) => PRESENCES.read(text, context),
        None => speaks.as_ref().map(|speaks| usual_presence(speaks, silence)),
    };
    let optional = |text: &Option<Spanned<String>>| text.clone();
    let time_write = optional(&doc.time_write).map_or(Some(TimeWrite::OnConnect), |text| TIMES.read(&text, context));
    let stored = optional(&doc.stored).map_or(Some(Stored::None), |text| STORES.read(&text, context));
    let ends_link = match &doc.ends_link {
        Some(text) => ENDS.read(text, context),
        None => Some(if presence == Some(Presence::Episodic) { EndsLink::Normal } else { EndsLink::Failure }),
    };
    let matches = matches(doc, &span, context);
    let quirks = doc.quirks.iter().filter_map(|text| QUIRKS.read(text, context)).collect();
    let pair_method = doc.pair_method.as_ref().and_then(|text| PAIRINGS.read(text, context));
    let (settle, users) = (settle(doc, context), users(doc, context));
    // Everything has been looked at before anything is given up: every problem is told at once.
    let ble = Ble {
        matches,
        speaks: speaks?,
        quirks,
        presence: presence?,
        silence,
        needs_bond: doc.needs_bond,
        pair_method,
        settle,
        users,
        time_write: time_write?,
        stored: stored?,
        deletes_on_transfer: doc.deletes_on_transfer,
        ends_link: ends_link?,
        multi_packet: doc.multi_packet.as_ref().is_some_and(|multi| *multi.get_ref()),
        hints: doc.hints.clone(),
    };
    contradictions(doc, &ble, profile, context);
    Some(ble)
}

/// Exactly one of `sensor`, `stream` and `advert`.
fn speaks(doc: &BleDoc, span: &Range<usize>, context: &mut Context<'_>) -> Option<Speaks> {
    match (&doc.sensor, &doc.stream, &doc.advert) {
        (Some(sensor), None, None) => SENSORS.read(sensor, context).map(Speaks::Standard),
        (None, Some(stream), None) => gatt(stream.get_ref(), context).map(Speaks::Stream),
        (None, None, Some(advert)) => advert_field(advert, context).map(Speaks::Advertised),
        _ => {
            context.problem(span, "[ble] needs one of `sensor`, `stream` and `advert`");
            None
        }
    }
}

fn gatt(doc: &StreamDoc, context: &mut Context<'_>) -> Option<Gatt> {
    let service = uuid_of(&doc.service, context);
    let notify = uuid_of(&doc.notify, context);
    let write = doc.write.as_ref().map(|write| uuid_of(write, context));
    Some(Gatt { service: service?, notify: notify?, write: write.flatten() })
}

fn advert_field(doc: &Spanned<AdvertDoc>, context: &mut Context<'_>) -> Option<AdvertField> {
    let inner = doc.get_ref();
    match (&inner.service_data, &inner.manufacturer_data) {
        (Some(service), None) => number_of(service, context).map(AdvertField::Service),
        (None, Some(company)) => number_of(company, context).map(AdvertField::Manufacturer),
        _ => {
            context.problem(&doc.span(), "`advert` needs either `service_data` or `manufacturer_data`");
            None
        }
    }
}

const fn usual_presence(speaks: &Speaks, silence: Option<Duration>) -> Presence {
    match speaks {
        Speaks::Standard(SensorKind::HeartRate | SensorKind::PulseOximeter) => Presence::Live,
        Speaks::Standard(_) | Speaks::Advertised(_) => Presence::Episodic,
        Speaks::Stream(_) => match silence {
            Some(silence) if silence.as_secs() >= EPISODIC_SILENCE.as_secs() => Presence::Episodic,
            _ => Presence::Live,
        },
    }
}

fn settle(doc: &BleDoc, context: &mut Context<'_>) -> Duration {
    let Some(text) = &doc.settle else { return Duration::ZERO };
    let settle = context.duration(text);
    if settle > MAX_SETTLE {
        let most = MAX_SETTLE.as_secs();
        context.problem(&text.span(), format!("settle {} is longer than {most} s", text.get_ref()));
    }
    settle
}

fn users(doc: &BleDoc, context: &mut Context<'_>) -> UserSlots {
    let Some(users) = &doc.users else { return UserSlots::default() };
    let users = users.get_ref();
    let count = *users.count.get_ref();
    // GSS, User Index: 255 is nobody.
    if !(1..=254).contains(&count) {
        context.problem(&users.count.span(), format!("{count} users; there can be 1 to 254"));
    }
    UserSlots { count, needs_consent: users.needs_consent }
}

fn matches(doc: &BleDoc, span: &Range<usize>, context: &mut Context<'_>) -> Vec<Match> {
    if doc.matches.is_empty() || doc.matches.len() > MAX_MATCHES {
        let message = format!("[ble] has {} ways in `match`; it needs 1 to {MAX_MATCHES}", doc.matches.len());
        context.problem(span, message);
    }
    doc.matches.iter().map(|one| build_match(one, context)).collect()
}

fn build_match(spanned: &Spanned<MatchDoc>, context: &mut Context<'_>) -> Match {
    let doc = spanned.get_ref();
    let glob = |text: &Option<Spanned<String>>, context: &mut Context<'_>| {
        let text = text.as_ref()?;
        let glob = Glob::new(text.get_ref());
        if glob.is_none() && !text.get_ref().starts_with(super::MARK) {
            context.problem(&text.span(), format!("`{}` fits anything", text.get_ref()));
        }
        glob
    };
    let found = Match {
        name: glob(&doc.name, context),
        service: doc.service.as_ref().and_then(|service| uuid_of(service, context)),
        service_data: doc.service_data.as_ref().and_then(|service| uuid_of(service, context)),
        company: doc.company.as_ref().and_then(|company| number_of(company, context)),
        manufacturer: glob(&doc.manufacturer, context),
        model: glob(&doc.model, context),
    };
    let texts = [&doc.name, &doc.service, &doc.service_data, &doc.company, &doc.manufacturer, &doc.model];
    let is_said = texts.iter().any(|text| text.is_some());
    if !is_said {
        context.problem(&spanned.span(), "a match needs `name`, `service`, `service_data`, `company` or `model`");
    } else if doc.manufacturer.is_some() && doc.model.is_none() {
        context.problem(&spanned.span(), "a maker has many models: `manufacturer` needs `model`");
    }
    found
}

/// Members that make no sense together.
fn contradictions(doc: &BleDoc, ble: &Ble, profile: &ProfileDoc, context: &mut Context<'_>) {
    let is_stream = ble.stream().is_some();
    let has_frames = profile.frame.is_some() || profile.superframe.is_some() || !profile.message.is_empty();
    if !is_stream && (profile.serial.is_some() || has_frames) {
        let place = doc.sensor.as_ref().map(Spanned::span).or_else(|| doc.advert.as_ref().map(Spanned::span));
        let message =
            "standard notifications are decoded by the program: no [serial], [frame], [superframe], [[message]]";
        context.problem(&place.unwrap_or_default(), message);
    }
    for (text, quirk) in doc.quirks.iter().zip(&ble.quirks) {
        let of = match quirk {
            Quirk::PulseAndStatusBigEndian | Quirk::UserWithoutFlag => SensorKind::BloodPressure,
            Quirk::ContactUnreliable => SensorKind::HeartRate,
            Quirk::KetoneAsMeal => SensorKind::Glucose,
        };
        if ble.sensor() != Some(of) {
            context.problem(&text.span(), format!("`{quirk}` needs `sensor = \"{of}\"`"));
        }
    }
    if let Some(text) = &doc.stored {
        let polls = profile.link.as_ref().is_some_and(|link| !link.get_ref().poll.is_empty());
        match ble.stored {
            Stored::Racp if ble.sensor() != Some(SensorKind::Glucose) => {
                context.problem(&text.span(), "only a glucose meter has a Record Access Control Point here");
            }
            Stored::Poll if !polls => context.problem(&text.span(), "`stored = \"poll\"` needs `poll` in [link]"),
            _ => {}
        }
    }
    if let Some(text) = doc.pair_method.as_ref().filter(|_| !doc.needs_bond) {
        context.problem(&text.span(), "`pair_method` needs `needs_bond = true`");
    }
    if let Some(place) = doc.multi_packet.as_ref().filter(|multi| *multi.get_ref())
        && ble.sensor() != Some(SensorKind::Scale)
    {
        context.problem(&place.span(), "`multi_packet` needs `sensor = \"scale\"`");
    }
    if let Some(stream) = &doc.stream
        && ble.stream().is_some_and(|gatt| gatt.write.is_none())
        && profile.link.as_ref().is_some_and(|link| link.get_ref().sends())
    {
        context.problem(&stream.span(), "[link] sends something, so that `stream` needs `write`");
    }
    if profile.tried_on_hardware.is_none() {
        context.problem(&(0..0), "say `tried_on_hardware = true` or `false`");
    }
}

#[cfg(test)]
mod tests {
    use super::super::Profile;

    /// A whole profile around this `[ble]`.
    fn problems(ble: &str) -> Vec<String> {
        let text = format!(
            "schema = 1\nid = \"x\"\nname = \"X\"\nkind = \"heart_rate\"\nnominal_hz = 1\ntried_on_hardware = false\n\
             [ble]\n{ble}\n"
        );
        match Profile::parse(&text) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.as_slice().iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn a_bluetooth_section_that_contradicts_itself_is_refused_with_every_problem_and_its_line() {
        let strap = "match = [{ name = \"S*\" }]\nsensor = \"heart_rate\"\n";
        assert_eq!(problems(strap), Vec::<String>::new());
        for (ble, words) in [
            ("sensor = \"heart_rate\"\n", "line 7: [ble] has 0 ways in `match`"),
            ("match = [{ name = \"S*\" }]\n", "line 7: [ble] needs one of `sensor`, `stream` and `advert`"),
            ("match = [{ name = \"*\" }]\nsensor = \"heart_rate\"\n", "line 8: `*` fits anything"),
            ("match = [{}]\nsensor = \"heart_rate\"\n", "line 8: a match needs `name`"),
            ("match = [{ manufacturer = \"P\" }]\nsensor = \"heart_rate\"\n", "line 8: a maker has many models"),
            ("match = [{ company = \"6b\" }]\nsensor = \"heart_rate\"\n", "line 8: `6b` is not a number of 4"),
            ("match = [{ service = \"18\" }]\nsensor = \"heart_rate\"\n", "line 8: `18` is not a UUID"),
            (
                "match = [{ name = \"S\" }]\nsensor = \"heartrate\"\n",
                "line 9: `heartrate` is not a sensor; the nearest is `heart_rate`",
            ),
        ] {
            let found = problems(ble);
            assert!(found.iter().any(|problem| problem.starts_with(words)), "{ble}: {found:?}");
        }
        for (more, words) in [
            ("quirks = [\"user_without_flag\"]", "line 10: `user_without_flag` needs `sensor = \"blood_pressure\"`"),
            ("quirks = [\"user\"]", "line 10: `user` is not a quirk; the nearest is"),
            ("pair_method = \"passkey\"", "line 10: `pair_method` needs `needs_bond = true`"),
            ("needs_bond = true\npair_method = \"pass\"", "line 11: `pass` is not a way to pair"),
            ("settle = \"11s\"", "line 10: settle 11s is longer than 10 s"),
            ("settle = \"fast\"", "line 10: `fast` is not a time"),
            ("users = { count = 255 }", "line 10: 255 users"),
            ("stored = \"racp\"", "line 10: only a glucose meter"),
            ("stored = \"poll\"", "line 10: `stored = \"poll\"` needs `poll`"),
            ("time_write = \"always\"", "line 10: `always` is not a time to write"),
            ("ends_link = \"never\"", "line 10: `never` is not an end of a link"),
            ("presence = \"often\"", "line 10: `often` is not a presence"),
            ("multi_packet = true", "line 10: `multi_packet` needs `sensor = \"scale\"`"),
            ("colour = \"red\"", "line 10: unknown field `colour`"),
            ("advert = { service_data = \"1809\" }", "line 7: [ble] needs one of"),
        ] {
            let found = problems(&format!("{strap}{more}"));
            assert!(found.iter().any(|problem| problem.starts_with(words)), "{more}: {found:?}");
        }
        let two = problems("match = [{ name = \"*\" }]\nsensor = \"ecg\"\nsettle = \"x\"\ntime_write = \"y\"");
        assert_eq!(two.len(), 4, "{two:?}");
    }
}
