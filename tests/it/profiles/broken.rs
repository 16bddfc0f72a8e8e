//! One mistake after the other in a profile that is right without it: what is said, and at which line.

use std::sync::Arc;

use vitalbridge::decode::self_test;
use vitalbridge::profile::Profile;

/// A packet with a checksum, a second type of it, waves, a state and a command.
const PACKET: &str = r#"schema = 1
id = "acme-ox1"
name = "Acme Ox-1"
kind = "pulse_oximeter"
nominal_hz = 50
sources = ["Acme Ox-1 protocol, revision C"]

[serial]
settings = ["9600 8N1"]
usb = ["10c4:ea60"]

[link]
silence = "3s"
init = [{ send = "55 AA 08 01 00 00 00 08" }]

[[link.command]]
id = "zero"
send = ["55 AA 08 02 00 00 00 09"]
actuates = true

[frame]
kind = "packet"
magic = "55 AA"
length = 8
checksum = { kind = "sum8", from = 0, to = -1, at = -1 }

[[message]]
id = "live"

[message.status]
off = { at = 2, bit = 0, maps = "sensor_off" }
search = { at = 2, bit = 1, maps = "searching" }

[[message.state]]
name = "mode"
bits = [{ at = 2, bit = 4, width = 2 }]
values = { 0 = "adult", 1 = "child" }
reason = { child = "not_measured" }

[[message.field]]
metric = "spo2"
unit = "%"
at = 3
unless = ["off"]
only = { mode = "adult" }

[[message.field]]
metric = "pulse_rate"
unit = "bpm"
bits = [{ at = 4, bit = 0, width = 2 }, { at = 5, bit = 0, width = 7 }]
range = [18, 321]
unless = ["off"]

[[message.wave]]
name = "pleth"
at = 6

[[test]]
name = "values"
case = "valid"
hex = "55 AA 00 61 00 48 40 E8"
expect = [{ spo2 = 97, pulse_rate = 72 }]

[[test]]
name = "finger out"
case = "sensor_off"
hex = "55 AA 01 61 00 48 40 E9"
expect = [{ spo2 = "sensor_off", pulse_rate = "sensor_off" }]

[[test]]
name = "a flipped bit"
case = "corrupted"
hex = "55 AA 00 60 00 48 40 E8"
bad_checksum = 1
"#;

/// Lines with a pattern and pairs.
const LINE: &str = r#"schema = 1
id = "acme-ox2"
name = "Acme Ox-2"
kind = "pulse_oximeter"
nominal_hz = 1
[serial]
settings = ["9600 8N1"]
[frame]
kind = "line"
end = ["\r\n", "\n"]
max = 80
[[message]]
id = "live"
match = '^(?P<time>\d\d) S=(?P<spo2>\d+|-+) E='
pairs = { sep = " ", assign = "=" }
[message.status]
off = { key = "E", radix = 16, bit = 0, maps = "sensor_off" }
[[message.field]]
metric = "spo2"
group = "spo2"
unless = ["off"]
[[test]]
name = "a value"
case = "valid"
text = "12 S=97 E=0\n"
expect = [{ spo2 = 97 }]
[[test]]
name = "off"
case = "sensor_off"
text = "12 S=97 E=1\n"
expect = [{ spo2 = "sensor_off" }]
[[test]]
name = "half"
case = "corrupted"
text = "=97 E=1\n"
skipped_bytes = 7
"#;

/// What is said about a profile: schema, warnings, tests, in the form `12: words`.
fn said(text: &str) -> Vec<String> {
    match Profile::parse(text) {
        Err(problems) => problems.as_slice().iter().map(|one| format!("{}: {}", one.line, one.message)).collect(),
        Ok(profile) => {
            let warnings = profile.warnings().clone();
            let failures = self_test::run(&Arc::new(profile));
            let warnings = warnings.as_slice().iter().map(|one| format!("{}: warning: {}", one.line, one.message));
            warnings.chain(failures.iter().map(|one| format!("{}: {}", one.line, one.message))).collect()
        }
    }
}

/// Each row: what is replaced, by what, how many lines after the first change the blame lies, and a part of the words.
type Row = (&'static str, &'static str, usize, &'static str);

fn check(base: &str, rows: &[Row]) {
    assert_eq!(said(base), Vec::<String>::new(), "the base is right");
    for (from, to, further, words) in rows {
        assert_eq!(base.matches(from).count(), 1, "`{from}` names one place of the base");
        let text = base.replace(from, to);
        let line = base.split(from).next().unwrap().matches('\n').count() + 1 + further;
        let found = said(&text);
        let expected = format!("{line}: ");
        assert!(
            found.iter().any(|one| one.starts_with(&expected) && one.contains(words)),
            "`{from}` -> `{to}`: no \"{expected}{words}\" among {found:#?}"
        );
    }
}

#[test]
fn a_mistake_in_head_line_or_link_is_told_at_its_line() {
    check(
        PACKET,
        &[
            ("schema = 1", "schema = 2", 0, "schema 2 is not known"),
            ("id = \"acme-ox1\"", "id = \"Acme Ox1\"", 0, "must be 1 to 64 of a-z 0-9 -"),
            ("name = \"Acme Ox-1\"", "name = \"FILL: maker\"", 0, "still to be filled in"),
            ("kind = \"pulse_oximeter\"", "kind = \"oximeter\"", 0, "unknown variant `oximeter`"),
            ("nominal_hz = 50", "nominal_hz = 0", 0, "nominal_hz 0 must be above 0"),
            ("nominal_hz = 50", "nominal_hz = 50\ncolour = 1", 1, "unknown field `colour`"),
            ("\"9600 8N1\"", "\"9600 9N1\"", 0, "is not a line setting such as 9600 8N1"),
            ("\"10c4:ea60\"", "\"10c4:x\"", 0, "is not vvvv or vvvv:pppp"),
            ("silence = \"3s\"", "silence = \"3\"", 0, "is not a time such as 50ms"),
            ("01 00 00 00 08\" }", "01 00 00 00 09\" }", 0, "has the checksum 09, must be 08"),
            ("02 00 00 00 09\"", "02 00 00 00 0A\"", 0, "has the checksum 0A, must be 09"),
            ("send = \"55 AA 08 01", "send = \"55 AG 08 01", 0, "`G` is not a hexadecimal digit"),
            ("send = \"55 AA 08 01", "send = \"5 AA 08 01", 0, "not a whole number of bytes"),
            ("08 01 00 00 00 08\"", "08 02 00 00 00 09\"", 0, "belongs to a command that actuates"),
        ],
    );
}

#[test]
fn a_mistake_in_a_frame_is_told_at_its_line() {
    check(
        PACKET,
        &[
            ("kind = \"packet\"", "kind = \"packets\"", 0, "unknown variant `packets`"),
            ("length = 8", "length = 8\nend = \"03\"", 1, "`end` means nothing in a frame of kind packet"),
            ("magic = \"55 AA\"", "magic = \"55 A\"", 0, "not a whole number of bytes"),
            ("magic = \"55 AA\"", "sync = [{ at = 9, value = 1 }]", 0, "byte 9 is not in every packet"),
            ("magic = \"55 AA\"", "sync = [{ at = 0, mask = 0x0F, value = 0x55 }]", 0, "has bits outside mask 0x0F"),
            ("magic = \"55 AA\"", "magic = \"55 AA\"\nlock = 99", 1, "lock 99 must be 1 to 20"),
            ("kind = \"sum8\"", "kind = \"sum9\"", 0, "unknown variant `sum9`"),
        ],
    );
    // These are blamed on the header of [frame].
    let header = |words: &str, text: String| {
        let line = PACKET.split("[frame]").next().unwrap().matches('\n').count() + 1;
        let found = said(&text);
        assert!(found.iter().any(|one| one.starts_with(&format!("{line}: ")) && one.contains(words)), "{found:#?}");
    };
    header("longer than 4096", PACKET.replace("length = 8", "length = 99999"));
    header("exactly one of `length`", PACKET.replace("length = 8\n", "\n"));
    let two = PACKET.replace("length = 8\n", "length = 8\nlength_from = { at = 2, min = 4, max = 9 }\n");
    header("exactly one of `length`", two);
    let unchecked = PACKET.replace("checksum = { kind = \"sum8\", from = 0, to = -1, at = -1 }\n", "");
    header("need `lock`", unchecked);
}

#[test]
fn a_mistake_in_a_message_is_told_at_its_line() {
    check(
        PACKET,
        &[
            ("bit = 0, maps = \"sensor_off\"", "bit = 0, maps = \"sensor_of\"", 0, "the nearest is `sensor_off`"),
            ("bit = 1, maps = \"searching\"", "bit = 1", 0, "needs `maps` or `event`"),
            ("{ at = 2, bit = 1,", "{ at = 9, bit = 1,", 0, "place 9 with 1 is outside the 8 bytes"),
            ("metric = \"spo2\"", "metric = \"sp02\"", 0, "`sp02` is not a metric; the nearest is `spo2`"),
            ("unit = \"%\"", "unit = \"mmHg\"", 0, "spo2 is kept in %"),
            ("unless = [\"off\"]\nonly", "unless = [\"of\"]\nonly", 0, "there is no status `of`"),
            ("range = [18, 321]", "range = [321, 18]", 0, "range 321 to 18 is empty"),
        ],
    );
    // These are blamed on the header of their table.
    for (from, to, header, words) in [
        (
            "{ at = 5, bit = 0, width = 7 }",
            "{ at = 4, bit = 1, width = 7 }",
            "pulse_rate",
            "bit 1 of byte 4 is used twice",
        ),
        (
            "{ at = 5, bit = 0, width = 7 }",
            "{ at = 3, bit = 0, width = 7 }",
            "pulse_rate",
            "pulse_rate overlaps the bits of spo2",
        ),
        ("{ at = 5, bit = 0, width = 7 }", "{ at = 5, bit = 4, width = 7 }", "pulse_rate", "do not lie in one byte"),
        ("{ at = 5, bit = 0, width = 7 }", "{ at = 15, bit = 0, width = 7 }", "pulse_rate", "outside the 8 bytes"),
        ("only = { mode = \"adult\" }", "only = { mood = \"adult\" }", "spo2", "there is no state `mood`"),
        ("only = { mode = \"adult\" }", "only = { mode = \"old\" }", "spo2", "state `mode` has no value `old`"),
    ] {
        let text = PACKET.replace(from, to);
        let line = text.lines().position(|line| line == format!("metric = \"{header}\"")).unwrap();
        let found = said(&text);
        assert!(
            found.iter().any(|one| one.starts_with(&format!("{line}: ")) && one.contains(words)),
            "no \"{line}: {words}\" among {found:#?}"
        );
    }
}

#[test]
fn bits_that_two_parts_read_are_a_warning_at_the_later_one() {
    for (from, to, later, words) in [
        ("bit = 1, maps", "bit = 0, maps", "search = ", "status `search` reads bit 0 of byte 2, as status `off` does"),
        (
            "{ at = 2, bit = 4, width = 2 }",
            "{ at = 2, bit = 1, width = 2 }",
            "[[message.state]]",
            "state `mode` reads bit 1 of byte 2, as status `search` does",
        ),
        (
            "{ at = 2, bit = 4, width = 2 }",
            "{ at = 3, bit = 0, width = 2 }",
            "metric = \"spo2\"",
            "the field spo2 reads bit 0 of byte 3, as state `mode` does",
        ),
        (
            "name = \"pleth\"\nat = 6",
            "name = \"pleth\"\nat = 3",
            "[[message.wave]]",
            "the wave pleth reads bit 0 of byte 3, as the field spo2 does",
        ),
    ] {
        let text = PACKET.replace(from, to);
        let profile = Profile::parse(&text).unwrap();
        let line = text.lines().position(|line| line.starts_with(later)).unwrap() + 1;
        let line = if later.starts_with("metric") { line - 1 } else { line };
        let found: Vec<String> =
            profile.warnings().as_slice().iter().map(|one| format!("{}: {}", one.line, one.message)).collect();
        assert_eq!(found, [format!("{line}: {words}")]);
    }
    // Two values of the same bits are what a status of several values looks like.
    let alternatives = PACKET
        .replace("off = { at = 2, bit = 0,", "off = { at = 2, mask = 3, value = 1,")
        .replace("search = { at = 2, bit = 1,", "search = { at = 2, mask = 3, value = 2,");
    assert_eq!(said(&alternatives), Vec::<String>::new());
}

#[test]
fn a_mistake_in_a_profile_of_lines_is_told_at_its_line() {
    check(
        LINE,
        &[
            ("match = '^(?P<time>", "match = '(?P<time>", 0, "a pattern begins with ^"),
            ("(?P<time>\\d\\d)", "(?P<time>\\d\\d", 0, "the pattern cannot be read"),
            ("key = \"E\", radix = 16", "key = \"E\", radix = 7", 0, "radix is 2, 8, 10 or 16"),
            ("key = \"E\", radix = 16", "group = \"error\", radix = 16", 0, "has no group `error`"),
        ],
    );
}

#[test]
fn a_profile_proves_itself_or_is_refused() {
    let without = |name: &str| {
        let start = PACKET.find(&format!("[[test]]\nname = \"{name}\"")).unwrap();
        let end = PACKET[start + 1..].find("[[test]]").map_or(PACKET.len(), |next| start + 1 + next);
        format!("{}{}", &PACKET[..start], &PACKET[end..])
    };
    for (name, case) in [("values", "valid"), ("finger out", "sensor_off"), ("a flipped bit", "corrupted")] {
        let found = said(&without(name));
        assert!(found.iter().any(|one| one.contains(&format!("needs a [[test]] with case = \"{case}\""))), "{found:?}");
    }
    // Blamed is the test's header, one or more lines above the change.
    for (from, to, test, words) in [
        ("expect = [{ spo2 = 97, pulse_rate = 72 }]", "", "values", "a valid case expects a value"),
        (
            "{ spo2 = \"sensor_off\", pulse_rate = \"sensor_off\" }",
            "{ spo2 = 97, pulse_rate = 72 }",
            "finger out",
            "expects a value that is withheld",
        ),
        ("bad_checksum = 1\n", "", "a flipped bit", "a corrupted case says how many"),
        ("spo2 = 97, pulse_rate = 72 }", "spo2 = 98, pulse_rate = 72 }", "values", "reading 1: spo2 must be 98, is 97"),
        ("spo2 = 97, pulse_rate = 72 }", "spo2 = 97 }", "values", "more than was expected"),
        ("bad_checksum = 1\n", "bad_checksum = 2\n", "a flipped bit", "bad_checksum must be 2, is 1"),
        ("hex = \"55 AA 00 61 00 48 40 E8\"", "", "values", "a test needs `hex` or `text`"),
    ] {
        let text = PACKET.replace(from, to);
        assert_ne!(text, PACKET);
        let line = text.lines().position(|line| line == format!("name = \"{test}\"")).unwrap();
        let found = said(&text);
        assert!(
            found.iter().any(|one| one.starts_with(&format!("{line}: ")) && one.contains(words)),
            "no \"{line}: {words}\" among {found:#?}"
        );
    }
}

#[test]
fn the_variants_find_what_the_tests_themselves_do_not_show() {
    // Without `min`, a lost 0, which changes no sum, gives another frame with a right one.
    let text = PACKET
        .replace(
            "kind = \"packet\"\nmagic = \"55 AA\"\nlength = 8\n",
            "kind = \"delimited\"\nstart = \"C0\"\nend = \"C1\"\nmax = 20\n",
        )
        .replace("init = [{ send = \"55 AA 08 01 00 00 00 08\" }]", "")
        .replace("send = [\"55 AA 08 02 00 00 00 09\"]", "send = [\"C0 02 02 C1\"]")
        .replace("at = 2, bit", "at = 0, bit")
        .replace("at = 3\n", "at = 1\n")
        .replace("{ at = 4, bit = 0, width = 2 }, { at = 5, bit = 0, width = 7 }", "{ at = 2, bit = 0, width = 7 }")
        .replace("at = 6\n", "at = 3\n")
        .replace("55 AA 00 61 00 48 40 E8", "C0 00 61 48 40 E9 C1")
        .replace("55 AA 01 61 00 48 40 E9", "C0 01 61 48 40 EA C1")
        .replace("55 AA 00 60 00 48 40 E8", "C0 00 60 48 40 E9 C1");
    let found = said(&text);
    let lost = found.iter().find(|one| one.contains("without byte 1: a value appears that was not sent"));
    assert!(lost.is_some(), "{found:#?}");
    let bounded = text.replace("max = 20\n", "min = 5\nmax = 20\n");
    assert_eq!(said(&bounded), Vec::<String>::new());
}

#[test]
fn noise_before_a_test_shows_a_framing_that_takes_anything_for_a_frame() {
    // One bit marks a packet and nothing checks it.
    let weak = PACKET
        .replace("magic = \"55 AA\"", "sync = [{ at = 0, mask = 0x40, value = 0x40 }]\nlock = 2")
        .replace("checksum = { kind = \"sum8\", from = 0, to = -1, at = -1 }\n", "")
        .replace("case = \"valid\"\n", "case = \"valid\"\ntimes = 2\n")
        .replace("pulse_rate = 72 }]", "pulse_rate = 72 }, { spo2 = 97, pulse_rate = 72 }]")
        .replace("bad_checksum = 1\n", "skipped_bytes = 8\n");
    let found = said(&weak);
    assert!(found.iter().any(|one| one.contains("after noise")), "{found:#?}");
}

#[test]
fn a_profile_larger_than_its_bound_is_refused() {
    let text = format!("{PACKET}# {}\n", "x".repeat(300_000));
    assert!(said(&text)[0].contains("at most 262144"), "{:?}", said(&text));
}

#[test]
fn places_beyond_every_frame_are_problems_and_no_overflow() {
    for far in ["9223372036854775807", "4611686018427387904", "600000000"] {
        for (from, to) in [
            ("at = 3\n", format!("at = {far}\n")),
            ("at = 6\n", format!("at = {far}\n")),
            ("at = 6\n", format!("at = 1\ncount = {far}\n")),
            ("{ at = 5, bit = 0, width = 7 }", format!("{{ at = {far}, bit = 0, width = 7 }}")),
            ("off = { at = 2,", format!("off = {{ at = {far},")),
            ("length = 8", format!("length = {far}")),
            ("magic = \"55 AA\"", format!("sync = [{{ at = {far}, value = 1 }}]")),
        ] {
            assert!(!said(&PACKET.replace(from, &to)).is_empty(), "{to}");
        }
    }
}
