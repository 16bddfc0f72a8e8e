//! Log lines as entries of the journal (`systemd.io/JOURNAL_NATIVE_PROTOCOL`): the whole sentence in `MESSAGE`, with why and who,
//! which is all that `journalctl -u` prints; and each field by itself, for `journalctl F_PATIENT=...`.

use std::fmt::{self, Write as _};
use std::io;
use std::os::unix::net::UnixDatagram;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{LookupSpan, Scope};

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// What the journal calls us.
const IDENTIFIER: &str = "vitalbridge";

/// Bytes of one value that are kept: an entry has to fit into one datagram, which the kernel takes up to some 200 KiB.
const MAX_VALUE_BYTES: usize = 4 * 1024;

/// Bytes of a whole sentence that are kept, with what escapes make longer.
const MAX_SENTENCE_BYTES: usize = 32 * 1024;

/// Fields of one event that are kept.
const MAX_FIELDS: usize = 16;

/// A way to the journal.
#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
}

/// What an event or a span says.
#[derive(Debug, Default)]
struct Told {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Journal {
    /// # Errors
    /// Nobody listens there.
    pub(super) fn connect() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // journald passes over an entry without fields.
        socket.send_to(&[], SOCKET)?;
        Ok(Self { socket })
    }
}

impl Visit for Told {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field.name(), format!("{value:?}"));
    }
}

impl Told {
    fn take(&mut self, name: &'static str, mut value: String) {
        value.truncate(value.floor_char_boundary(MAX_VALUE_BYTES));
        if name == "message" {
            self.message = value;
        } else if self.fields.len() < MAX_FIELDS {
            self.fields.push((name, value));
        }
    }

    /// In one line: who says it, what, and the fields. A value with spaces stands in quotation marks, so that its end can be seen.
    fn sentence(&self, spans: &[String]) -> String {
        let mut line = String::new();
        for span in spans {
            line.push_str(span);
            line.push_str(": ");
        }
        line.push_str(&self.message);
        for (name, value) in &self.fields {
            let is_plain =
                !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"');
            // Writing to a String cannot fail.
            let _ = if is_plain { write!(line, " {name}={value}") } else { write!(line, " {name}={value:?}") };
        }
        line.truncate(line.floor_char_boundary(MAX_SENTENCE_BYTES));
        line
    }

    fn entry(&self, metadata: &Metadata<'_>, spans: &[String]) -> Vec<u8> {
        // Ours are lines for people: `info` is what they shall see of a unit, the journal's notice.
        let priority = match *metadata.level() {
            Level::ERROR => "3",
            Level::WARN => "4",
            Level::INFO => "5",
            Level::DEBUG => "6",
            Level::TRACE => "7",
        };
        let mut bytes = Vec::with_capacity(512);
        put(&mut bytes, "MESSAGE", &self.sentence(spans));
        put(&mut bytes, "PRIORITY", priority);
        put(&mut bytes, "SYSLOG_IDENTIFIER", IDENTIFIER);
        put(&mut bytes, "TARGET", metadata.target());
        for (name, value) in &self.fields {
            put(&mut bytes, &format!("F_{}", name.replace('.', "_").to_ascii_uppercase()), value);
        }
        bytes
    }
}

fn put(bytes: &mut Vec<u8>, name: &str, value: &str) {
    bytes.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        bytes.push(b'\n');
        bytes.extend_from_slice(&u64::try_from(value.len()).unwrap_or(0).to_le_bytes());
    } else {
        bytes.push(b'=');
    }
    bytes.extend_from_slice(value.as_bytes());
    bytes.push(b'\n');
}

/// What a span adds to each line in it: the name of the task.
struct Named(String);

impl<S: Subscriber + for<'lookup> LookupSpan<'lookup>> Layer<S> for Journal {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut told = Told::default();
        attributes.record(&mut told);
        if let (Some(span), Some((_, name))) =
            (context.span(id), told.fields.into_iter().find(|(field, _)| *field == "name"))
        {
            span.extensions_mut().insert(Named(name));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut told = Told::default();
        event.record(&mut told);
        let scope = context.event_scope(event).into_iter().flat_map(Scope::from_root);
        let spans: Vec<String> =
            scope.filter_map(|span| span.extensions().get::<Named>().map(|named| named.0.clone())).collect();
        // A log that cannot be written is no reason to end: there is nobody to tell.
        let _ = self.socket.send_to(&told.entry(event.metadata(), &spans), SOCKET);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_journal_has_the_reason_in_it() {
        let mut told = Told::default();
        told.take("message", "readings cannot be written".to_owned());
        told.take("error", "disk I/O error".to_owned());
        told.take("seq", "7".to_owned());
        told.take("note", String::new());
        told.take("what", "two\nlines".to_owned());
        let expected =
            r#"source strap: readings cannot be written error="disk I/O error" seq=7 note="" what="two\nlines""#;
        assert_eq!(told.sentence(&["source strap".to_owned()]), expected);
    }

    #[test]
    fn what_is_too_long_is_cut_and_a_value_in_lines_has_its_length_before_it() {
        let mut told = Told::default();
        told.take("error", "ä".repeat(MAX_VALUE_BYTES));
        for _ in 0..100 {
            told.take("more", "x".to_owned());
        }
        assert_eq!((told.fields.len(), told.fields[0].1.len()), (MAX_FIELDS, MAX_VALUE_BYTES));
        for (_, value) in &mut told.fields {
            *value = "\u{1}".repeat(MAX_VALUE_BYTES);
        }
        assert_eq!(told.sentence(&[]).len(), MAX_SENTENCE_BYTES);
        let mut bytes = Vec::new();
        put(&mut bytes, "A", "one");
        put(&mut bytes, "B", "x\ny");
        assert_eq!(bytes, b"A=one\nB\n\x03\0\0\0\0\0\0\0x\ny\n");
    }
}
