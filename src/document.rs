//! Reading a TOML document into a serde type, with every problem of the document reported together.
//!
//! serde stops at the first problem. [`read`] takes the offending item out of the text (blanking it, so that every
//! other place keeps its line) and tries again, until the rest can be read: one broken line never hides the next.

use std::fmt;
use std::ops::Range;

use serde::de::DeserializeOwned;

/// More problems than this are not listed; nobody reads on, and a hostile file costs no more.
pub const MAX_PROBLEMS: usize = 100;

/// One problem in a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1. 0 where no line can be blamed.
    pub line: usize,
    /// What is wrong, with the value, and what to do instead.
    pub message: String,
}

impl Problem {
    /// The problem with its place in the usual form, `FILE:LINE: what`.
    pub fn at(&self, file: &str) -> String {
        if self.line == 0 {
            format!("{file}: {}", self.message)
        } else {
            format!("{file}:{}: {}", self.line, self.message)
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 { f.write_str(&self.message) } else { write!(f, "line {}: {}", self.line, self.message) }
    }
}

/// All problems of one document, in the order of their lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Adds a problem at a byte range of `text`.
    pub fn add(&mut self, text: &str, span: &Range<usize>, message: impl Into<String>) {
        self.add_at_line(line_of(text, span.start), message);
    }

    /// Adds a problem with its line (0: none).
    pub fn add_at_line(&mut self, line: usize, message: impl Into<String>) {
        let problem = Problem { line, message: message.into() };
        if self.0.len() < MAX_PROBLEMS && !self.0.contains(&problem) {
            let place = self.0.partition_point(|earlier| earlier.line <= line);
            self.0.insert(place, problem);
        }
    }

    /// Takes over the problems of another pass over the same document.
    pub fn extend(&mut self, other: Self) {
        for problem in other.0 {
            self.add_at_line(problem.line, problem.message);
        }
    }

    /// True if the document is fine.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The problems, in the order of their lines.
    pub fn as_slice(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The line, from 1, of a byte offset.
pub fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// Reads `text` as `T` and adds every problem to `problems`.
///
/// `None` if nothing could be read even without the broken items. If something could, it is returned beside the
/// problems so that its meaning can be checked in the same pass; whoever calls must still refuse the document.
pub fn read<T: DeserializeOwned>(text: &str, problems: &mut Problems) -> Option<T> {
    let mut rest = text.to_owned();
    let mut blanked = Vec::new();
    for _ in 0..MAX_PROBLEMS {
        let error = match toml::from_str::<T>(&rest) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let Some(span) = error.span() else {
            problems.add_at_line(0, first_line(error.message()));
            return None;
        };
        let message = first_line(error.message());
        if !blanked.iter().any(|part| is_missed(text, part, message)) {
            problems.add(text, &span, message);
        }
        let part = match whole_table(&rest, &span) {
            Some(table) if message.starts_with("missing field") || message.starts_with("unknown field") => Some(table),
            _ => broken_item(&rest, &span),
        };
        let changed = part.as_ref().is_some_and(|part| blank(&mut rest, part));
        blanked.extend(part);
        if !changed {
            return None;
        }
    }
    None
}

/// serde's messages may go on with a list of every known key; the first line says it all.
fn first_line(message: &str) -> &str {
    message.lines().next().unwrap_or(message)
}

/// True if serde misses a field that was only blanked: its own problem has been reported.
fn is_missed(text: &str, blanked: &Range<usize>, message: &str) -> bool {
    let field = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
    let part = text.get(blanked.clone()).unwrap_or("");
    field.is_some_and(|field| part.trim_start().starts_with(field))
}

/// The bytes of the item whose key or value is at `span`: a `key = value` pair, wherever its value ends, or, if the
/// span is a table's header, that whole table. Where the syntax is broken, the line.
fn broken_item(text: &str, span: &Range<usize>) -> Option<Range<usize>> {
    match toml::de::DeTable::parse(text) {
        Ok(document) => item_at(document.get_ref(), span),
        Err(_) => Some(line_range(text, span)),
    }
}

/// The bytes of the table whose header is at `span`, up to the next header: without its header, what it holds would be
/// taken for members of the table above.
fn whole_table(text: &str, span: &Range<usize>) -> Option<Range<usize>> {
    let start = line_range(text, span).start;
    let table = text.get(start..).filter(|table| table.starts_with('['))?;
    let length = table.find("\n[").map_or(table.len(), |newline| newline + 1);
    Some(start..start + length)
}

/// Replaces a range by spaces, line by line; false if nothing changed.
fn blank(text: &mut String, range: &Range<usize>) -> bool {
    let Some(part) = text.get(range.clone()) else {
        return false;
    };
    let blanks: String = part.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect();
    let changed = part != blanks;
    text.replace_range(range.clone(), &blanks);
    changed
}

/// The line or lines that `span` touches.
fn line_range(text: &str, span: &Range<usize>) -> Range<usize> {
    let start = text.get(..span.start).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1);
    let end = text.get(span.end..).and_then(|after| after.find('\n')).map_or(text.len(), |newline| span.end + newline);
    start..end
}

/// The bytes of the innermost `key = value` whose key or value holds `span`.
fn item_at(table: &toml::de::DeTable<'_>, span: &Range<usize>) -> Option<Range<usize>> {
    let holds = |outer: &Range<usize>| outer.start <= span.start && span.end <= outer.end;
    for (key, value) in table {
        if holds(&key.span()) {
            return Some(key.span().start..value.span().end);
        }
        let inner = match value.get_ref() {
            toml::de::DeValue::Table(inner) => item_at(inner, span),
            toml::de::DeValue::Array(items) => items.iter().find_map(|item| match item.get_ref() {
                toml::de::DeValue::Table(inner) => {
                    item_at(inner, span).or_else(|| holds(&item.span()).then(|| item.span()))
                }
                _ => None,
            }),
            _ => None,
        };
        if inner.is_some() {
            return inner;
        }
        if holds(&value.span()) {
            return Some(key.span().start.min(value.span().start)..value.span().end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only the reading is tested")]
    struct Inner {
        port: u16,
        name: Option<String>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only the reading is tested")]
    struct Outer {
        title: Option<String>,
        server: Option<Inner>,
        #[serde(default)]
        source: Vec<Inner>,
    }

    fn problems_of(text: &str) -> Vec<String> {
        let mut problems = Problems::default();
        let _ = read::<Outer>(text, &mut problems);
        problems.as_slice().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_good_document_has_no_problem() {
        assert_eq!(problems_of("title = 'x'\n[server]\nport = 1\n[[source]]\nport = 2\n"), Vec::<String>::new());
    }

    #[test]
    fn every_problem_is_reported_with_its_line() {
        let found = problems_of(
            "title = 5\ncolour = 'red'\n[server]\nport = 'x'\nname = 'ok'\n[[source]]\nport = 70000\n[[source]]\nprot = 1\nport = 3\n",
        );
        let lines: Vec<_> = found.iter().map(|problem| problem.split(':').next().unwrap()).collect();
        assert!(lines.starts_with(&["line 1", "line 2"]), "{found:#?}");
        assert!(lines.contains(&"line 4"), "{found:#?}");
        assert!(lines.contains(&"line 7"), "{found:#?}");
        assert!(lines.contains(&"line 9"), "{found:#?}");
    }

    #[test]
    fn a_table_that_misses_a_field_is_one_problem() {
        let found = problems_of("[[source]]\nname = 'x'\n[[source]]\nport = 'y'\n[server]\nport = 1\ncolour = 1\n");
        assert_eq!(found.len(), 3, "{found:#?}");
        assert_eq!(found[0], "line 1: missing field `port`");
        assert!(found[1].starts_with("line 4"), "{found:#?}");
        assert!(found[2].starts_with("line 7"), "{found:#?}");
    }

    #[test]
    fn a_table_that_nobody_knows_is_one_problem() {
        let found = problems_of("[nonsense]\ncolour = 1\n[server]\nport = 'x'\n");
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(found[0].starts_with("line 1: unknown field `nonsense`"), "{found:#?}");
        assert!(found[1].starts_with("line 4"), "{found:#?}");
    }

    #[test]
    fn broken_syntax_does_not_hide_what_is_below() {
        let found = problems_of("title = \n[server]\nport = 'x'\n");
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(found[0].starts_with("line 1"), "{found:#?}");
        assert!(found[1].starts_with("line 3"), "{found:#?}");
    }

    #[test]
    fn rubbish_ends_with_a_bounded_list() {
        let rubbish = "]]]\u{0}\n= = =\n".repeat(500);
        assert!(problems_of(&rubbish).len() <= MAX_PROBLEMS);
    }
}
