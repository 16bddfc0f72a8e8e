//! Writes values into a line of text: a line of the profile's tests with its groups and pairs replaced.
//!
//! A pattern cannot be turned round in general. What can be done is to replace what its groups found in a real line,
//! and to see that the pattern finds the new text there again; where one line does not serve, the next is tried.

use std::ops::Range;

use regex::Regex;

use super::bytes::with_flag;
use super::choice::{Put, Said};
use super::{Misfit, Moment, amount, unit};
use crate::profile::Profile;
use crate::profile::model::{Field, InnerLines, Message, Pairs, Source, Test, TextSource};
use crate::vitals::Decimal;

/// Whether numbers are as long as in the pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    /// Only if the pattern's number has leading zeros.
    AsNeeded,
    /// Always, by leading zeros.
    Full,
}

/// One line of a message, without its end.
pub(super) fn encode(
    profile: &Profile,
    message: usize,
    patterns: &[String],
    said: &Said,
    moment: Moment<'_>,
) -> Result<String, Misfit> {
    let mut last = Misfit::new("it has no pattern");
    for pattern in patterns {
        for width in [Width::AsNeeded, Width::Full] {
            match attempt(profile, message, pattern, said, moment, width) {
                Ok(line) => return Ok(line),
                Err(misfit) => last = misfit,
            }
        }
    }
    Err(last)
}

/// A frame's content with its lines of text replaced.
pub(super) fn encode_inner(
    profile: &Profile,
    lines: &InnerLines,
    content: &[u8],
    said: &Said,
    moment: Moment<'_>,
) -> Result<Vec<u8>, Misfit> {
    let mut made = content.get(..lines.from).unwrap_or(&[]).to_vec();
    let end = lines.end.first().map_or(&[][..], Vec::as_slice);
    for (place, line) in unit::inner_lines(lines, content).into_iter().enumerate() {
        if place > 0 {
            made.extend(end);
        }
        match unit::line_message(profile, line) {
            Some(message) => {
                made.extend(encode(profile, message, &[line.to_owned()], said, moment)?.as_bytes());
            }
            None => made.extend(line.as_bytes()),
        }
    }
    let rest = content.len().saturating_sub(lines.until).max(lines.from);
    made.extend(content.get(rest..).unwrap_or(&[]));
    Ok(made)
}

/// What replaces the text of a group.
struct Edit {
    group: usize,
    text: String,
}

fn attempt(
    profile: &Profile,
    index: usize,
    line: &str,
    said: &Said,
    moment: Moment<'_>,
    width: Width,
) -> Result<String, Misfit> {
    let message = profile.messages().get(index).ok_or_else(|| Misfit::new("there is no such message"))?;
    let regex = message.pattern.as_ref().ok_or_else(|| Misfit::new("it has no pattern"))?;
    let edits = edits(regex, index, message, line, said, moment, width)?;
    let mut made = replaced(regex, line, &edits)?;
    if let Some(pairs) = &message.pairs {
        put_pairs(&mut made, pairs, index, message, said, moment, width)?;
    }
    let captures = regex.captures(&made).filter(|_| unit::line_message(profile, &made) == Some(index));
    let captures = captures.ok_or_else(|| Misfit(format!("the pattern does not know `{made}`")))?;
    for edit in &edits {
        let found = captures.get(edit.group).map_or("", |group| group.as_str());
        if found.trim() != edit.text.trim() {
            return Err(Misfit(format!("the pattern finds `{found}` where `{}` was written", edit.text)));
        }
    }
    Ok(made)
}

/// What is written into the groups of a line.
fn edits(
    regex: &Regex,
    index: usize,
    message: &Message,
    line: &str,
    said: &Said,
    moment: Moment<'_>,
    width: Width,
) -> Result<Vec<Edit>, Misfit> {
    let captures = regex.captures(line).ok_or_else(|| Misfit(format!("the pattern does not know `{line}`")))?;
    let found = |group: usize| captures.get(group).map(|found| found.as_str());
    let mut edits: Vec<Edit> = Vec::new();
    for flag in &message.flags {
        let is_set = said.has_flag(flag, moment);
        match &flag.test {
            Test::Word { group, word } => {
                let place = edits.iter().position(|edit| edit.group == *group).unwrap_or(edits.len());
                if place == edits.len() {
                    edits.push(Edit { group: *group, text: String::new() });
                }
                if let (Some(edit), true) = (edits.get_mut(place), is_set) {
                    edit.text.push_str("    ");
                    edit.text.push_str(word);
                }
            }
            Test::Present { group } if is_set => {
                if found(*group).is_none_or(|text| text.trim().is_empty()) {
                    return Err(Misfit(format!("none of the profile's tests has a line with {}", flag.name)));
                }
            }
            Test::Present { group } => edits.push(Edit { group: *group, text: String::new() }),
            Test::Number { source: Source::Group { group, radix }, mask, value } => {
                let old = found(*group).unwrap_or("");
                // Several flags may share a number: each changes what the ones before it have made.
                let place = edits.iter().position(|edit| edit.group == *group);
                let before = place.and_then(|place| edits.get(place)).map_or(old, |edit| &edit.text);
                let bits = flagged(before, *radix, *mask, *value, is_set)?;
                let text = whole(bits.into(), old, *radix, Width::Full);
                match place.and_then(|place| edits.get_mut(place)) {
                    Some(edit) => edit.text = text,
                    None => edits.push(Edit { group: *group, text }),
                }
            }
            Test::Number { .. } | Test::Byte(_) => {}
        }
    }
    for state in &message.states {
        if let (Source::Group { group, radix }, Some(number)) = (&state.source, said.state(state)) {
            edits.push(Edit { group: *group, text: whole(number, found(*group).unwrap_or(""), *radix, width) });
        }
    }
    for (place, field) in message.fields.iter().enumerate() {
        let Source::Group { group, radix } = &field.source else { continue };
        let old = found(*group).unwrap_or("");
        if let Some(text) = field_text(field, said.put(index, place), old, *radix, width)? {
            edits.push(Edit { group: *group, text });
        }
    }
    if let (Some(text), Some(number)) = (&message.serial_number, said.serial_number())
        && let TextSource::Group(group) = &text.source
    {
        edits.push(Edit { group: *group, text: number.to_owned() });
    }
    Ok(edits)
}

/// The line with the groups replaced. Where the new text is shorter and stands after a space, spaces keep the columns.
fn replaced(regex: &Regex, line: &str, edits: &[Edit]) -> Result<String, Misfit> {
    let captures = regex.captures(line).ok_or_else(|| Misfit(format!("the pattern does not know `{line}`")))?;
    let mut places: Vec<(Range<usize>, &str)> = Vec::new();
    for edit in edits {
        match captures.get(edit.group) {
            Some(found) => places.push((found.range(), edit.text.as_str())),
            None if edit.text.is_empty() => {}
            None => return Err(Misfit(format!("the line `{line}` has no place for `{}`", edit.text))),
        }
    }
    places.sort_by_key(|(range, _)| range.start);
    let mut made = String::with_capacity(line.len());
    let mut from = 0;
    for (range, text) in places {
        made.push_str(line.get(from..range.start).unwrap_or(""));
        if made.ends_with(' ') && !text.is_empty() {
            made.extend(std::iter::repeat_n(' ', range.len().saturating_sub(text.len())));
        }
        made.push_str(text);
        from = range.end;
    }
    made.push_str(line.get(from..).unwrap_or(""));
    Ok(made)
}

/// The text of a field; `None`: as it is.
fn field_text(field: &Field, put: Put, old: &str, radix: u32, width: Width) -> Result<Option<String>, Misfit> {
    let places = old.split_once('.').map_or(0, |(_, fraction)| fraction.trim_end().len());
    let exponent = i8::try_from(places).map_or(0, |places| -places);
    let of_metric = |misfit: Misfit| Misfit(format!("{}: {misfit}", field.metric));
    Ok(Some(match put {
        Put::Keep => return Ok(None),
        Put::Value(value) => {
            let step = Decimal::new(1, exponent).unwrap_or_else(|| Decimal::integer(1));
            let steps = amount::steps(field, value, step).map_err(of_metric)?;
            decimal(steps, exponent, old, radix, width)
        }
        Put::Raw(number) => {
            let steps = number.saturating_mul(10_i64.saturating_pow(u32::try_from(places).unwrap_or(0)));
            decimal(steps, exponent, old, radix, width)
        }
        Put::Dashes if old.bytes().any(|byte| byte.is_ascii_digit() || byte == b'-') => {
            old.chars().map(|c| if c.is_ascii_hexdigit() { '-' } else { c }).collect()
        }
        Put::Dashes => "---".to_owned(),
        Put::Special(reason) => return Err(of_metric(Misfit(format!("a text cannot say {reason}")))),
    }))
}

fn decimal(steps: i64, exponent: i8, old: &str, radix: u32, width: Width) -> String {
    if exponent == 0 {
        return whole(steps, old, radix, width);
    }
    let text = Decimal::new(steps, exponent).map_or_else(String::new, |number| number.to_string());
    padded(&text, old, width)
}

fn whole(number: i64, old: &str, radix: u32, width: Width) -> String {
    let text = if radix == 16 { format!("{number:X}") } else { number.to_string() };
    padded(&text, old, width)
}

/// Leading zeros up to the length of `old`.
fn padded(text: &str, old: &str, width: Width) -> String {
    let old = old.trim();
    let is_padded = old.strip_prefix('0').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_hexdigit()));
    if width == Width::AsNeeded && !is_padded {
        return text.to_owned();
    }
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    format!("{sign}{digits:0>length$}", length = old.len().saturating_sub(sign.len()))
}

/// The number of a flag's text with the flag set or cleared.
fn flagged(old: &str, radix: u32, mask: u32, value: u32, is_set: bool) -> Result<u32, Misfit> {
    let bits = u32::from_str_radix(old.trim(), radix).map_err(|_| Misfit(format!("`{old}` has no bits")))?;
    Ok(with_flag(bits, mask, value, is_set))
}

fn put_pairs(
    line: &mut String,
    pairs: &Pairs,
    index: usize,
    message: &Message,
    said: &Said,
    moment: Moment<'_>,
    width: Width,
) -> Result<(), Misfit> {
    for flag in &message.flags {
        let Test::Number { source: Source::Key { key, radix }, mask, value } = &flag.test else { continue };
        let is_set = said.has_flag(flag, moment);
        change(line, pairs, key, is_set, |old| {
            Ok(Some(whole(flagged(old, *radix, *mask, *value, is_set)?.into(), old, *radix, Width::Full)))
        })?;
    }
    for state in &message.states {
        if let (Source::Key { key, radix }, Some(number)) = (&state.source, said.state(state)) {
            change(line, pairs, key, true, |old| Ok(Some(whole(number, old, *radix, width))))?;
        }
    }
    for (place, field) in message.fields.iter().enumerate() {
        let Source::Key { key, radix } = &field.source else { continue };
        let put = said.put(index, place);
        let must_exist = matches!(put, Put::Value(_)) || !field.optional;
        change(line, pairs, key, must_exist, |old| field_text(field, put, old, *radix, width))?;
    }
    if let (Some(text), Some(number)) = (&message.serial_number, said.serial_number())
        && let TextSource::Key(key) = &text.source
    {
        change(line, pairs, key, true, |_| Ok(Some(number.to_owned())))?;
    }
    Ok(())
}

/// Changes the value of a key; what the profile takes off its end stays.
fn change(
    line: &mut String,
    pairs: &Pairs,
    key: &str,
    must_exist: bool,
    new: impl Fn(&str) -> Result<Option<String>, Misfit>,
) -> Result<(), Misfit> {
    let Some(range) = value_of(line, pairs, key) else {
        let missing = Misfit(format!("the line has no key {key}"));
        return if must_exist { Err(missing) } else { Ok(()) };
    };
    if let Some(text) = new(line.get(range.clone()).unwrap_or(""))? {
        line.replace_range(range, &text);
    }
    Ok(())
}

/// Where the value of a key stands in a line.
fn value_of(line: &str, pairs: &Pairs, key: &str) -> Option<Range<usize>> {
    let mut from = 0;
    for pair in line.split(pairs.separator.as_str()) {
        let trimmed = pair.trim_start();
        let value = trimmed.strip_prefix(key).and_then(|rest| rest.strip_prefix(pairs.assign.as_str()));
        if let Some(value) = value {
            let start = from + pair.len() - value.len();
            let kept = value.trim_end_matches(|c: char| c.is_ascii_whitespace() || pairs.strip.contains(c));
            return Some(start..start + kept.len());
        }
        from += pair.len() + pairs.separator.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_the_leading_zeros_of_the_pattern() {
        for (text, old, width, expected) in [
            ("97", "097", Width::AsNeeded, "097"),
            ("97", "100", Width::AsNeeded, "97"),
            ("97", "100", Width::Full, "097"),
            ("4.96", "04.10", Width::AsNeeded, "04.96"),
            ("0.5", "0.1", Width::AsNeeded, "0.5"),
            ("-2", "027", Width::AsNeeded, "-02"),
            ("7", "---", Width::Full, "007"),
        ] {
            assert_eq!(padded(text, old, width), expected, "{text} like {old}");
        }
    }

    #[test]
    fn groups_are_replaced_and_columns_keep_their_places() {
        let regex = Regex::new(r"^(\S+) +(\d+) +(\d+)( [A-Z]+)?$").unwrap();
        let edit = |group, text: &str| Edit { group, text: text.to_owned() };
        let line = "11:24   100     105";
        assert_eq!(replaced(&regex, line, &[edit(3, "7"), edit(2, "97")]).unwrap(), "11:24    97       7");
        assert_eq!(replaced(&regex, line, &[edit(4, "")]).unwrap(), line);
        assert!(replaced(&regex, line, &[edit(4, " PS")]).is_err());
    }

    #[test]
    fn a_pair_is_changed_and_its_unit_stays() {
        let pairs = Pairs { separator: " ".to_owned(), assign: "=".to_owned(), strip: "%".to_owned() };
        let mut line = "SPO2=097% XPI=1 PI=04.96%".to_owned();
        change(&mut line, &pairs, "PI", true, |_| Ok(Some("01.20".to_owned()))).unwrap();
        assert_eq!(line, "SPO2=097% XPI=1 PI=01.20%");
        assert!(change(&mut line, &pairs, "EXC", true, |_| Ok(None)).is_err());
        assert!(change(&mut line, &pairs, "EXC", false, |_| Ok(None)).is_ok());
    }
}
