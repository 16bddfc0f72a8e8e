//! Replays recorded numerics: a CSV file whose rows hold until the next one, at a chosen speed.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::Mono;
use crate::event::LinkState;
use crate::vitals::{Absent, Decimal, Metric, Pressure, Value, Vital};

use super::output::{Observation, SourceOutput};
use super::{Memory, RESEND_EVERY, SourceError};

/// Largest file that is read: a month of one-second rows fits.
pub const MAX_FILE_BYTES: u64 = 256 * 1024 * 1024;
/// Longest time that one row may hold, in seconds of the file. A longer gap is an error of the file, and is cut.
const MAX_HOLD_S: f64 = 86_400.0;
/// So many problems of a file are logged one by one; the rest is only counted.
const MAX_LOGGED_PROBLEMS: u64 = 20;

/// Which recording to play, and how fast.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayConfig {
    /// The CSV file.
    pub path: PathBuf,
    /// Seconds of the file in one second.
    pub speed: Speed,
}

/// How fast a recording is played: 0.01 to 86,400 seconds of the file in one second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed(f64);

impl Speed {
    /// As it was recorded.
    pub const REAL_TIME: Self = Self(1.0);

    /// `None` if it is not a number between 0.01 and 86,400.
    pub fn new(factor: f64) -> Option<Self> {
        (0.01..=86_400.0).contains(&factor).then_some(Self(factor))
    }

    /// How long a span of the file lasts.
    fn lasts(self, file_seconds: f64) -> Duration {
        Duration::from_secs_f64(file_seconds.clamp(0.0, MAX_HOLD_S) / self.0)
    }
}

/// Why a recording cannot be played at all.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It cannot be read.
    #[error("cannot read the recording {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        error: std::io::Error,
    },
    /// It is larger than [`MAX_FILE_BYTES`].
    #[error("the recording {} has {bytes} bytes, more than {MAX_FILE_BYTES}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The header makes no sense.
    #[error("line 1: {0}")]
    Header(String),
}

/// One thing wrong in a recording; the rest goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowProblem {
    /// Line in the file, from 1.
    pub line: u64,
    /// Column, by its name in the header, if one can be blamed.
    pub column: Option<String>,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for RowProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.column {
            Some(column) => write!(f, "line {}, column {column}: {}", self.line, self.message),
            None => write!(f, "line {}: {}", self.line, self.message),
        }
    }
}

impl std::error::Error for RowProblem {}

/// Which number of a pressure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Systolic,
    Diastolic,
    Mean,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    /// A number that holds until the next row.
    Continuous(Metric),
    /// A number that was measured at the row's time.
    Once(Metric),
    /// A part of a cuff's measurement, at the row's time.
    Cuff(Part),
    /// A part of the arterial line's pressure, which holds.
    Line(Part),
    /// The time between two beats, in ms, at the row's time.
    Beat,
}

impl Column {
    /// By the names that the MIMIC databases and bedside exports use; any case.
    fn named(name: &str) -> Option<Self> {
        let column = match name.to_ascii_lowercase().as_str() {
            "hr" => Self::Continuous(Metric::HeartRate),
            "pulse" | "pr" => Self::Continuous(Metric::PulseRate),
            "resp" | "rr" => Self::Continuous(Metric::RespiratoryRate),
            "spo2" => Self::Continuous(Metric::Spo2),
            "etco2" => Self::Continuous(Metric::Etco2),
            "temp" => Self::Once(Metric::Temperature),
            "nbpsys" => Self::Cuff(Part::Systolic),
            "nbpdias" | "nbpdia" => Self::Cuff(Part::Diastolic),
            "nbpmean" => Self::Cuff(Part::Mean),
            "abpsys" => Self::Line(Part::Systolic),
            "abpdias" | "abpdia" => Self::Line(Part::Diastolic),
            "abpmean" => Self::Line(Part::Mean),
            "rr_ms" => Self::Beat,
            _ => return None,
        };
        Some(column)
    }
}

/// One row: when, and what.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Seconds in the file's own time.
    pub seconds: f64,
    /// Vitals that hold until the next row; absent ones too.
    pub holding: Vec<Vital>,
    /// Vitals that were measured at this moment.
    pub once: Vec<Vital>,
}

impl Row {
    /// What is sent when the row has held for `nth` times [`RESEND_EVERY`]: what was measured at its moment only then,
    /// what holds each time.
    pub fn observations(&self, nth: u64) -> impl Iterator<Item = Observation> {
        let once = if nth == 0 { self.once.as_slice() } else { &[] };
        once.iter().chain(&self.holding).cloned().map(Observation::of)
    }
}

/// A row, and how long it holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// The row.
    pub row: Row,
    /// Seconds of the file until the next row; `None` for the last one.
    pub seconds: Option<f64>,
}

impl Held {
    /// How long the row holds at a speed: until the next one, or a second after the last one.
    pub fn lasts(&self, speed: Speed) -> Duration {
        self.seconds.map_or(RESEND_EVERY, |seconds| speed.lasts(seconds))
    }
}

/// A recording that is being read.
pub struct Recording {
    reader: csv::Reader<std::io::Cursor<Vec<u8>>>,
    seconds_a_unit: f64,
    names: Vec<String>,
    /// What each column after the first holds; `None` for an unknown one.
    columns: Vec<Option<Column>>,
    last_seconds: Option<f64>,
    /// The row after the one that was given out last; `None` before the first and after the last.
    ahead: Option<Row>,
    problems: Vec<RowProblem>,
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Recording {
    /// Reads the header of a CSV text.
    pub fn new(csv: Vec<u8>) -> Result<Self, ReplayError> {
        let mut reader = csv::ReaderBuilder::new()
            .flexible(true)
            .trim(csv::Trim::All)
            .comment(Some(b'#'))
            .from_reader(std::io::Cursor::new(csv));
        let header = reader.headers().map_err(|error| ReplayError::Header(error.to_string()))?.clone();
        let mut names = header.iter().map(|name| name.trim_start_matches('\u{feff}').to_owned());
        let time = names.next().unwrap_or_default();
        let seconds_a_unit = match time.to_ascii_lowercase().as_str() {
            "minute" => 60.0,
            "t_s" => 1.0,
            _ => {
                let message = format!("the first column is `{time}`, not the time: `minute` or `t_s`");
                return Err(ReplayError::Header(message));
            }
        };
        let names: Vec<String> = names.collect();
        let columns: Vec<_> = names.iter().map(|name| Column::named(name)).collect();
        for (place, column) in columns.iter().enumerate() {
            if column.is_some() && columns.iter().skip(place + 1).any(|later| later == column) {
                let name = names.get(place).map_or("", String::as_str);
                return Err(ReplayError::Header(format!("two columns hold the same as `{name}`")));
            }
        }
        if columns.iter().all(Option::is_none) {
            return Err(ReplayError::Header("no column is known".to_owned()));
        }
        Ok(Self { reader, seconds_a_unit, names, columns, last_seconds: None, ahead: None, problems: Vec::new() })
    }

    /// Columns that are not played because nobody knows what they hold.
    pub fn unknown_columns(&self) -> impl Iterator<Item = &str> {
        self.names.iter().zip(&self.columns).filter(|(_, column)| column.is_none()).map(|(name, _)| name.as_str())
    }

    /// What was wrong in the rows since the last call.
    pub fn take_problems(&mut self) -> Vec<RowProblem> {
        std::mem::take(&mut self.problems)
    }

    /// The next row, with the time until the one after it.
    pub fn next_held(&mut self) -> Option<Held> {
        let row = self.ahead.take().or_else(|| self.next_row())?;
        self.ahead = self.next_row();
        let seconds = self.ahead.as_ref().map(|next| next.seconds - row.seconds);
        Some(Held { row, seconds })
    }

    /// The next row that has a time later than the last one.
    fn next_row(&mut self) -> Option<Row> {
        let mut record = csv::StringRecord::new();
        loop {
            match self.reader.read_record(&mut record) {
                Ok(false) => return None,
                Ok(true) => {
                    let line = record.position().map_or(0, csv::Position::line);
                    if let Some(row) = self.row(&record, line) {
                        return Some(row);
                    }
                }
                Err(error) => {
                    let line = error.position().map_or(0, csv::Position::line);
                    let ended = !matches!(error.kind(), csv::ErrorKind::Utf8 { .. });
                    self.problems.push(RowProblem { line, column: None, message: error.to_string() });
                    if ended {
                        return None;
                    }
                }
            }
        }
    }

    fn row(&mut self, record: &csv::StringRecord, line: u64) -> Option<Row> {
        let mut cells = record.iter();
        let time = cells.next().unwrap_or_default();
        let seconds = match time.parse::<f64>() {
            Ok(number) if number.is_finite() => number * self.seconds_a_unit,
            _ => {
                self.problems.push(RowProblem { line, column: None, message: format!("`{time}` is not a time") });
                return None;
            }
        };
        if self.last_seconds.is_some_and(|last| seconds <= last) {
            let message = format!("the time {time} is not later than that of the row before");
            self.problems.push(RowProblem { line, column: None, message });
            return None;
        }
        self.last_seconds = Some(seconds);
        if record.len() > self.columns.len() + 1 {
            let message = format!("{} cells, the header has {}", record.len(), self.columns.len() + 1);
            self.problems.push(RowProblem { line, column: None, message });
        }
        let cells = cells.chain(std::iter::repeat(""));
        let known = self.columns.iter().zip(&self.names).zip(cells);
        let known = known.filter_map(|((column, name), cell)| column.map(|column| (column, name, cell)));
        let mut parts = Parts::default();
        for (column, name, cell) in known {
            let value = match read_cell(cell) {
                Ok(value) => value,
                Err(message) => {
                    self.problems.push(RowProblem { line, column: Some(name.clone()), message });
                    Cell::Malformed
                }
            };
            parts.take(column, value);
        }
        Some(parts.into_row(seconds))
    }
}

/// What a cell holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    Empty,
    Malformed,
    Number(Decimal),
}

impl Cell {
    fn value(self, metric: Metric) -> Value {
        match self {
            Self::Empty => Value::Absent(Absent::NotMeasured),
            Self::Malformed => Value::Absent(Absent::NotANumber),
            Self::Number(number) => Value::reported(metric, number),
        }
    }
}

fn read_cell(cell: &str) -> Result<Cell, String> {
    if cell.is_empty() {
        return Ok(Cell::Empty);
    }
    if cell.eq_ignore_ascii_case("nan") {
        return Ok(Cell::Malformed);
    }
    cell.parse().map(Cell::Number).map_err(|error: crate::vitals::BadDecimal| error.to_string())
}

/// The vitals of a row while its cells are read.
#[derive(Debug, Default)]
struct Parts {
    holding: Vec<Vital>,
    once: Vec<Vital>,
    cuff: [Option<Cell>; 3],
    line: [Option<Cell>; 3],
}

impl Parts {
    fn take(&mut self, column: Column, cell: Cell) {
        match column {
            Column::Continuous(metric) => self.holding.push(Vital::scalar(metric, cell.value(metric))),
            Column::Once(metric) if cell != Cell::Empty => self.once.push(Vital::scalar(metric, cell.value(metric))),
            Column::Beat => {
                if let Cell::Number(millis) = cell
                    && let Some(raw) = rr_raw(millis).filter(|raw| *raw > 0)
                {
                    self.once.push(Vital::RrIntervals(vec![raw]));
                }
            }
            Column::Cuff(part) => place(&mut self.cuff, part, cell),
            Column::Line(part) => place(&mut self.line, part, cell),
            Column::Once(_) => {}
        }
    }

    fn into_row(mut self, seconds: f64) -> Row {
        // A cuff has a value only in the rows in which it measured.
        if self.cuff.iter().flatten().any(|cell| *cell != Cell::Empty) {
            self.once.push(Vital::BloodPressure(pressure(self.cuff, Metric::BloodPressure)));
        }
        if self.line.iter().any(Option::is_some) {
            self.holding.push(Vital::ArterialPressure(pressure(self.line, Metric::ArterialPressure)));
        }
        Row { seconds, holding: self.holding, once: self.once }
    }
}

const fn place([systolic, diastolic, mean]: &mut [Option<Cell>; 3], part: Part, cell: Cell) {
    let slot = match part {
        Part::Systolic => systolic,
        Part::Diastolic => diastolic,
        Part::Mean => mean,
    };
    *slot = Some(cell);
}

fn pressure(cells: [Option<Cell>; 3], metric: Metric) -> Pressure {
    let [systolic, diastolic, mean] = cells.map(|cell| cell.unwrap_or(Cell::Empty).value(metric));
    Pressure { systolic, diastolic, mean }
}

/// Milliseconds as units of 1/1024 s, rounded; `None` for what no interval can be.
fn rr_raw(millis: Decimal) -> Option<u16> {
    let places = u32::from(millis.exponent().unsigned_abs());
    let divisor = 125 * 10_i64.checked_pow(if millis.exponent() < 0 { places } else { 0 })?;
    let mantissa =
        millis.mantissa().checked_mul(10_i64.checked_pow(if millis.exponent() > 0 { places } else { 0 })?)?;
    // 1024/1000 is 128/125.
    u16::try_from((mantissa.checked_mul(128)? + divisor / 2) / divisor).ok()
}

/// Plays a recording to its end.
pub(super) async fn run(
    config: &ReplayConfig,
    output: &mut SourceOutput,
    memory: &mut Memory,
    stop: &CancellationToken,
) -> Result<(), SourceError> {
    output.state(LinkState::Opening).await?;
    let mut recording = Recording::new(load(&config.path).await?)?;
    for column in recording.unknown_columns() {
        tracing::warn!(device = %output.device(), column, "column of the recording is unknown and is not played");
    }
    output.state(LinkState::Live).await?;
    memory.was_live = true;
    let mut logged = 0;
    let mut until = output.now().mono;
    while let Some(held) = recording.next_held() {
        log_problems(&mut recording, output, &mut logged);
        // Added up from the start, so that the time that sending takes does not slow the recording down.
        until = until + held.lasts(config.speed);
        if !play(&held.row, until, output, stop).await? {
            return Ok(());
        }
    }
    log_problems(&mut recording, output, &mut logged);
    if logged > MAX_LOGGED_PROBLEMS {
        let more = logged - MAX_LOGGED_PROBLEMS;
        tracing::warn!(device = %output.device(), more, "the recording has more problems than were listed");
    }
    Ok(())
}

async fn load(path: &std::path::Path) -> Result<Vec<u8>, ReplayError> {
    let owned = path.to_owned();
    let read = tokio::task::spawn_blocking(move || read_file(&owned));
    read.await
        .unwrap_or_else(|error| Err(ReplayError::Read { path: path.to_owned(), error: std::io::Error::other(error) }))
}

/// Reads a recording from the disk; blocks.
pub fn read_file(path: &std::path::Path) -> Result<Vec<u8>, ReplayError> {
    let refuse = |error| ReplayError::Read { path: path.to_owned(), error };
    let bytes = std::fs::metadata(path).map_err(refuse)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(ReplayError::TooLarge { path: path.to_owned(), bytes });
    }
    std::fs::read(path).map_err(refuse)
}

/// Plays one row until the next one begins. False if the daemon stops meanwhile.
async fn play(row: &Row, until: Mono, output: &SourceOutput, stop: &CancellationToken) -> Result<bool, SourceError> {
    for nth in 0.. {
        for observation in row.observations(nth) {
            let now = output.now();
            output.reading(observation, now).await?;
        }
        let left = until.since(output.now().mono);
        let wait = left.min(RESEND_EVERY);
        tokio::select! {
            biased;
            // The daemon stops.
            () = stop.cancelled() => return Ok(false),
            // The next second, or the next row.
            () = tokio::time::sleep(wait) => {}
        }
        if left <= RESEND_EVERY {
            break;
        }
    }
    Ok(true)
}

fn log_problems(recording: &mut Recording, output: &SourceOutput, logged: &mut u64) {
    for problem in recording.take_problems() {
        *logged += 1;
        if *logged <= MAX_LOGGED_PROBLEMS {
            tracing::error!(device = %output.device(), %problem, "problem in the recording");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(csv: &str) -> (Vec<Row>, Vec<String>) {
        let mut recording = Recording::new(csv.as_bytes().to_vec()).unwrap();
        let mut rows = Vec::new();
        while let Some(row) = recording.next_row() {
            rows.push(row);
        }
        (rows, recording.take_problems().iter().map(ToString::to_string).collect())
    }

    fn number(text: &str) -> Value {
        Value::Valid(text.parse().unwrap())
    }

    #[test]
    fn a_row_holds_numbers_and_absences_as_the_monitor_recorded_them() {
        let (rows, problems) = rows(
            "minute,HR,ABPSys,ABPDias,ABPMean,PULSE,RESP,SpO2,NBPSys,NBPDias,NBPMean\n\
                                     0,0.0,91.5,50.0,64.0,,12.7,97.0,,,\n\
                                     1,62.8,0.0,0.0,0.0,63.1,10.2,0.0,121,70,88\n",
        );
        assert_eq!(problems, Vec::<String>::new());
        let absent = |reason| Value::Absent(reason);
        let line = |systolic, diastolic, mean| Vital::ArterialPressure(Pressure { systolic, diastolic, mean });
        let zero = absent(Absent::ZeroReported);
        assert_eq!(
            rows,
            [
                Row {
                    seconds: 0.0,
                    holding: vec![
                        Vital::scalar(Metric::HeartRate, zero),
                        Vital::scalar(Metric::PulseRate, absent(Absent::NotMeasured)),
                        Vital::scalar(Metric::RespiratoryRate, number("12.7")),
                        Vital::scalar(Metric::Spo2, number("97.0")),
                        line(number("91.5"), number("50.0"), number("64.0")),
                    ],
                    once: vec![],
                },
                Row {
                    seconds: 60.0,
                    holding: vec![
                        Vital::scalar(Metric::HeartRate, number("62.8")),
                        Vital::scalar(Metric::PulseRate, number("63.1")),
                        Vital::scalar(Metric::RespiratoryRate, number("10.2")),
                        Vital::scalar(Metric::Spo2, zero),
                        line(zero, zero, zero),
                    ],
                    once: vec![Vital::BloodPressure(Pressure {
                        systolic: number("121"),
                        diastolic: number("70"),
                        mean: number("88"),
                    })],
                },
            ]
        );
    }

    #[test]
    fn a_malformed_cell_is_named_and_absent_and_the_rest_goes_on() {
        let (rows, problems) =
            rows("t_s,hr,colour,SPO2\n1,6x2,red,97\nlater,60,red,97\n2,61,red,9 7\n2,62,red,98\n3,63\n4,1e400,,98,7\n");
        let shown: Vec<_> =
            rows.iter().map(|row| (row.seconds, row.holding[0].leading(), row.holding[1].leading())).collect();
        let bad = Value::Absent(Absent::NotANumber);
        assert_eq!(
            shown,
            [
                (1.0, bad, number("97")),
                (2.0, number("61"), bad),
                (3.0, number("63"), Value::Absent(Absent::NotMeasured)),
                (4.0, bad, number("98")),
            ]
        );
        assert_eq!(
            problems,
            [
                "line 2, column hr: `6x2` is not a decimal number such as 36.4",
                "line 3: `later` is not a time",
                "line 4, column SPO2: `9 7` is not a decimal number such as 36.4",
                "line 5: the time 2 is not later than that of the row before",
                "line 7: 5 cells, the header has 4",
                "line 7, column hr: `1e400` is not a decimal number such as 36.4",
            ]
        );
    }

    #[test]
    fn a_header_without_sense_is_refused() {
        for (header, why) in [
            ("", "line 1: the first column is ``, not the time: `minute` or `t_s`"),
            ("HR,SpO2", "line 1: the first column is `HR`, not the time: `minute` or `t_s`"),
            ("t_s,HR,hr", "line 1: two columns hold the same as `HR`"),
            ("t_s,colour", "line 1: no column is known"),
        ] {
            assert_eq!(Recording::new(header.as_bytes().to_vec()).unwrap_err().to_string(), why);
        }
        let recording = Recording::new(b"t_s,colour,HR\n".to_vec()).unwrap();
        assert_eq!(recording.unknown_columns().collect::<Vec<_>>(), ["colour"]);
    }

    #[test]
    fn beats_are_intervals_of_1_1024_s() {
        let (rows, _) = rows("t_s,rr_ms\n2.6120,488.00\n3.0980,1000\n4,0\n5,99999999\n");
        let beats: Vec<_> = rows.into_iter().flat_map(|row| row.once).collect();
        assert_eq!(beats, [Vital::RrIntervals(vec![500]), Vital::RrIntervals(vec![1024])]);
    }

    #[test]
    fn speeds_are_bounded() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
            assert_eq!(Speed::new(bad), None, "{bad}");
        }
        assert_eq!(Speed::new(60.0).unwrap().lasts(60.0), Duration::from_secs(1));
        assert_eq!(Speed::REAL_TIME.lasts(1e12), Duration::from_hours(24));
    }
}
