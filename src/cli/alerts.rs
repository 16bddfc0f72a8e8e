//! `vitalbridge alerts test`: what a rule set would have alarmed on recorded numerics, so that limits can be tuned.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value as Json, json};

use super::{CommandError, note};
use crate::alerts::RuleSet;
use crate::alerts::trial::{Tally, Trial, TrialAlert, TrialReport, TrialRow, Tried, Variant};
use crate::clock::{Clock, Wall};
use crate::ids::PatientId;
use crate::sources::RESEND_EVERY;
use crate::sources::replay::{Held, Recording, RowProblem, Speed, read_file};

/// Longest recording, in seconds. A longer one is refused: its times are wrong.
const MAX_SPAN_S: f64 = 366.0 * 86_400.0;
/// So many problems of a recording are told one by one; the rest is only counted.
const MAX_TOLD_PROBLEMS: usize = 20;
/// What stands in a table where there is nothing to tell.
const NOTHING: &str = "-";

#[derive(Debug, Args)]
pub(super) struct AlertsArgs {
    #[command(subcommand)]
    command: AlertsCommand,
}

#[derive(Debug, Subcommand)]
enum AlertsCommand {
    /// Try a rule file on a recording: which alerts, when, how often and how long.
    Test(TestArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "Example: vitalbridge alerts test --rules rules.toml --replay numerics.csv --compare\n\n\
    The recording is a CSV as for `vitalbridge replay`: its first column is `minute` or `t_s`, empty and 0 are no data,\n\
    a row holds until the next row's time. Times are those of the recording. Nobody acknowledges or resets: an alert\n\
    that comes back while it is latched counts again.")]
struct TestArgs {
    /// The rule file, on top of the default set; without it the default set alone.
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// The recording.
    #[arg(long, value_name = "FILE.csv")]
    replay: PathBuf,
    /// The patient whose overrides hold; without it nobody's.
    #[arg(long, value_name = "ID")]
    patient: Option<PatientId>,
    /// Also try the limits without delay, hysteresis and inhibition, and once more with 0 taken for a number.
    #[arg(long)]
    compare: bool,
    /// Print each alert.
    #[arg(long)]
    list: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: AlertsArgs) -> Result<(), CommandError> {
    let AlertsCommand::Test(args) = args.command;
    let rules = rules(args.rules.as_deref())?;
    let played = play(&args, &rules, Clock::System.now().wall)?;
    let text = if args.json { format!("{}\n", as_json(&args, &played)) } else { as_text(&args, &played) };
    if !args.json {
        for problem in played.problems.iter().take(MAX_TOLD_PROBLEMS) {
            note(&format!("{}: {problem}", args.replay.display()));
        }
        let more = played.problems.len().saturating_sub(MAX_TOLD_PROBLEMS);
        if more > 0 {
            note(&format!("{}: {more} problems more", args.replay.display()));
        }
    }
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// The rules of a file, or the default set.
fn rules(file: Option<&Path>) -> Result<RuleSet, CommandError> {
    let Some(file) = file else {
        return Ok(RuleSet::built_in());
    };
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|error| CommandError::Refused(format!("{name}: {error}")))?;
    RuleSet::parse(&text).map_err(|problems| {
        let lines: Vec<String> = problems.as_slice().iter().map(|problem| problem.at(&name)).collect();
        CommandError::Refused(format!("the rules have {} problems:\n{}", lines.len(), lines.join("\n")))
    })
}

/// What came of a recording.
struct Played {
    rows: u64,
    /// Time of the first row in the file, and the end of the last, in seconds.
    from: f64,
    until: f64,
    longest_row: Duration,
    problems: Vec<RowProblem>,
    unknown_columns: Vec<String>,
    /// By what was tried, the rules themselves first.
    reports: Vec<(Variant, TrialReport)>,
}

impl Played {
    /// How long the recording is.
    const fn span_s(&self) -> f64 {
        self.until - self.from
    }

    /// A time since the first row as the file tells it.
    fn file_time(&self, since: Duration) -> f64 {
        self.from + since.as_secs_f64()
    }

    fn own(&self) -> Option<&TrialReport> {
        self.reports.first().map(|(_, report)| report)
    }
}

/// Plays the recording in its own time to each trial.
fn play(args: &TestArgs, rules: &RuleSet, wall: Wall) -> Result<Played, CommandError> {
    let refuse = |error: &dyn std::fmt::Display| CommandError::Usage(format!("{}: {error}", args.replay.display()));
    let csv = read_file(&args.replay).map_err(|error| CommandError::Usage(error.to_string()))?;
    let mut recording = Recording::new(csv).map_err(|error| refuse(&error))?;
    let unknown_columns = recording.unknown_columns().map(ToOwned::to_owned).collect();
    let nobody = || "recording".parse::<PatientId>().map_err(|error| refuse(&error));
    let patient = args.patient.clone().map_or_else(nobody, Ok)?;
    let all = if args.compare { Variant::ALL } else { &[Variant::AsWritten] };
    let mut trials = Vec::new();
    for variant in all {
        let source = "recording".parse().map_err(|error| refuse(&error))?;
        let device = "recording".parse().map_err(|error| refuse(&error))?;
        trials.push((*variant, Trial::new(rules, patient.clone(), source, device, *variant, wall)));
    }
    let (mut from, mut end, mut rows, mut longest_row) = (None, Duration::ZERO, 0, Duration::ZERO);
    while let Some(held) = recording.next_held() {
        let since = held.row.seconds - *from.get_or_insert(held.row.seconds);
        if since > MAX_SPAN_S {
            return Err(refuse(&"the recording spans more than 366 days: its times are wrong"));
        }
        let at = Duration::from_secs_f64(since.max(0.0));
        let lasts = held.lasts(Speed::REAL_TIME);
        for (_, trial) in &mut trials {
            take(trial, &held, at, lasts);
        }
        (end, rows, longest_row) = (at + lasts, rows + 1, longest_row.max(lasts));
    }
    let problems = recording.take_problems();
    let Some(from) = from else {
        let problems: Vec<String> = problems.iter().take(MAX_TOLD_PROBLEMS).map(ToString::to_string).collect();
        return Err(refuse(&format!("no row can be played\n{}", problems.join("\n")).trim_end()));
    };
    let reports = trials.into_iter().map(|(variant, trial)| (variant, trial.finish(end))).collect();
    let until = from + end.as_secs_f64();
    Ok(Played { rows, from, until, longest_row, problems, unknown_columns, reports })
}

/// Gives a row to a trial as the replay source sends it: every second until the next one.
fn take(trial: &mut Trial, held: &Held, at: Duration, lasts: Duration) {
    let mut offset = Duration::ZERO;
    for nth in 0.. {
        for observation in held.row.observations(nth) {
            trial.take(at + offset, &observation.vital, observation.quality);
        }
        offset += RESEND_EVERY;
        if offset >= lasts {
            return;
        }
    }
}

/// The result for people.
fn as_text(args: &TestArgs, played: &Played) -> String {
    let mut lines = vec![
        format!(
            "{}: {} rows, {} to {} ({}); a row holds until the next one, the longest {}",
            args.replay.display(),
            played.rows,
            clock(played.from),
            clock(played.until),
            length(Duration::from_secs_f64(played.span_s().max(0.0))),
            length(played.longest_row),
        ),
        format!("rules: {}", whose(args)),
    ];
    if !played.unknown_columns.is_empty() {
        lines.push(format!("columns that nobody knows: {}", played.unknown_columns.join(", ")));
    }
    if let Some(report) = played.own() {
        lines.push(String::new());
        lines.extend(table(&overview(report, played)));
        lines.extend(not_tried(report));
        if args.compare {
            lines.push(String::new());
            lines.push("Compared with the limits alone (no delay, hysteresis or inhibition):".to_owned());
            lines.extend(table(&comparison(played)));
        }
        if args.list {
            lines.push(String::new());
            lines.extend(table(&listing(report, played)));
            if report.unlisted > 0 {
                lines.push(format!("and {} alerts more", report.unlisted));
            }
        }
    }
    lines.join("\n") + "\n"
}

fn whose(args: &TestArgs) -> String {
    let rules = args.rules.as_ref().map_or("the default set".to_owned(), |file| file.display().to_string());
    args.patient.as_ref().map_or(rules.clone(), |patient| format!("{rules}, for patient {patient}"))
}

/// The name of a row: the rule, and the metric of a no-signal rule.
fn name(row: &TrialRow) -> String {
    row.metric.map_or_else(|| row.limit.rule.to_string(), |metric| format!("{} {metric}", row.limit.rule))
}

fn tried(report: &TrialReport) -> impl Iterator<Item = &TrialRow> {
    report.rows.iter().filter(|row| row.tried == Tried::Yes)
}

fn overview(report: &TrialReport, played: &Played) -> Vec<Vec<String>> {
    let head = ["rule", "priority", "alerts", "total", "longest", "share", "no data", "near misses", "first", "last"];
    let mut table = vec![head.map(ToOwned::to_owned).to_vec()];
    table.extend(tried(report).map(|row| {
        let tally = &row.tally;
        let time = |at: Option<Duration>| at.map_or(NOTHING.to_owned(), |at| clock(played.file_time(at)));
        vec![
            name(row),
            row.limit.priority.to_string(),
            tally.alerts.to_string(),
            length(tally.total),
            length(tally.longest),
            format!("{:.1} %", share(tally, played) * 100.0),
            length(tally.unknown),
            row.near_misses.to_string(),
            time(tally.first),
            time(tally.last),
        ]
    }));
    table
}

fn not_tried(report: &TrialReport) -> Vec<String> {
    let of = |why: Tried, words: &str| {
        let rules: Vec<String> = report.rows.iter().filter(|row| row.tried == why).map(name).collect();
        (!rules.is_empty()).then(|| format!("not tried, {words}: {}", rules.join(", ")))
    };
    let all = [
        of(Tried::NoValues, "no value in the recording"),
        of(Tried::NotRecorded, "about devices or the bridge"),
        of(Tried::Off, "ALARM OFF"),
    ];
    all.into_iter().flatten().collect()
}

/// The row of another report that is about the same.
fn same<'r>(report: &'r TrialReport, row: &TrialRow) -> Option<&'r TrialRow> {
    report.rows.iter().find(|other| other.limit.rule == row.limit.rule && other.metric == row.metric)
}

fn comparison(played: &Played) -> Vec<Vec<String>> {
    let mut head = vec!["rule".to_owned()];
    for (variant, _) in &played.reports {
        let words = match variant {
            Variant::AsWritten => "rules",
            Variant::RawLimits => "limits",
            Variant::RawLimitsAndZeros => "limits, 0 counts",
        };
        head.extend([words.to_owned(), "total".to_owned()]);
    }
    let mut table = vec![head];
    let physiological = |row: &&TrialRow| row.limit.kind == crate::event::AlertKind::Physiological;
    let rows: Vec<&TrialRow> = played.own().into_iter().flat_map(tried).filter(physiological).collect();
    let mut sums = vec![(0, Duration::ZERO); played.reports.len()];
    for row in rows {
        let mut cells = vec![name(row)];
        for ((_, report), sum) in played.reports.iter().zip(&mut sums) {
            let tally = same(report, row).map(|row| row.tally.clone()).unwrap_or_default();
            *sum = (sum.0 + tally.alerts, sum.1 + tally.total);
            cells.extend([tally.alerts.to_string(), length(tally.total)]);
        }
        table.push(cells);
    }
    let sums = sums.into_iter().flat_map(|(alerts, total)| [alerts.to_string(), length(total)]);
    table.push(std::iter::once("all of them".to_owned()).chain(sums).collect());
    table
}

fn listing(report: &TrialReport, played: &Played) -> Vec<Vec<String>> {
    let head = ["start", "end", "lasted", "priority", "rule", "reason"];
    let mut table = vec![head.map(ToOwned::to_owned).to_vec()];
    table.extend(report.alerts.iter().map(|alert| {
        let mut reason = alert.message.clone();
        if !alert.unknown.is_zero() {
            reason = format!("{reason}; {} of it without data", length(alert.unknown));
        }
        if !alert.hidden.is_zero() {
            reason = format!("{reason}; {} of it behind another alert", length(alert.hidden));
        }
        let end = clock(played.file_time(alert.end));
        vec![
            clock(played.file_time(alert.start)),
            if alert.is_open { format!("{end}+") } else { end },
            length(alert.lasted()),
            alert.priority.to_string(),
            alert.rule.to_string(),
            reason,
        ]
    }));
    table
}

/// Lines of a table whose first line is its head. Columns of numbers and times stand on the right.
fn table(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.first().map_or(0, Vec::len);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell: &String| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let is_word = |column: usize| {
        let mut below = rows.iter().skip(1).filter_map(|row: &Vec<String>| row.get(column));
        below.any(|cell: &String| cell.starts_with(|first: char| first.is_ascii_alphabetic()))
    };
    let words: Vec<bool> = (0..columns).map(is_word).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).zip(&words);
        let cells = cells
            .map(|((cell, width), word)| if *word { format!("{cell:<width$}") } else { format!("{cell:>width$}") });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn share(tally: &Tally, played: &Played) -> f64 {
    let span = played.span_s();
    if span > 0.0 { tally.total.as_secs_f64() / span } else { 0.0 }
}

/// Seconds of the file as `26:05:09`, with milliseconds where there are any.
fn clock(seconds: f64) -> String {
    let millis = Duration::from_secs_f64(seconds.abs().min(1e12)) + Duration::from_micros(500);
    let (secs, millis) = (millis.as_secs(), millis.subsec_millis());
    let sign = if seconds < 0.0 { "-" } else { "" };
    let fraction = if millis == 0 { String::new() } else { format!(".{millis:03}") };
    format!("{sign}{:02}:{:02}:{:02}{fraction}", secs / 3600, secs / 60 % 60, secs % 60)
}

/// A length as `2 h 05 min`, `3 min 05 s`, `15 s` or `0.5 s`.
fn length(time: Duration) -> String {
    let secs = (time + Duration::from_millis(500)).as_secs();
    match (time.as_millis(), secs) {
        (0, _) => NOTHING.to_owned(),
        (millis, _) if millis < 60_000 && millis % 1000 != 0 => format!("{:.1} s", time.as_secs_f64()),
        (_, ..60) => format!("{secs} s"),
        (_, 60..3600) => format!("{} min {:02} s", secs / 60, secs % 60),
        _ => format!("{} h {:02} min", secs / 3600, secs / 60 % 60),
    }
}

/// The result for programs. Times are seconds of the file.
fn as_json(args: &TestArgs, played: &Played) -> Json {
    let problems = played.problems.iter();
    let problems: Vec<Json> =
        problems.map(|one| json!({"line": one.line, "column": one.column, "message": one.message})).collect();
    let rows = played.own().into_iter().flat_map(|report| &report.rows).map(|row| row_json(args, played, row));
    let mut json = json!({
        "recording": args.replay, "rules_file": args.rules, "patient": args.patient, "rows": played.rows,
        "from_s": rounded(played.from), "until_s": rounded(played.until),
        "longest_row_s": rounded(played.longest_row.as_secs_f64()),
        "problems": problems, "unknown_columns": played.unknown_columns, "rules": rows.collect::<Vec<_>>(),
    });
    if args.list
        && let (Some(report), Some(json)) = (played.own(), json.as_object_mut())
    {
        let alerts: Vec<Json> = report.alerts.iter().map(|alert| alert_json(played, alert)).collect();
        json.insert("alerts".to_owned(), alerts.into());
        json.insert("unlisted".to_owned(), report.unlisted.into());
    }
    json
}

fn row_json(args: &TestArgs, played: &Played, row: &TrialRow) -> Json {
    let mut json = tally_json(played, &row.tally);
    let Some(map) = json.as_object_mut() else {
        return json;
    };
    map.insert("rule".to_owned(), json!(row.limit.rule));
    map.insert("metric".to_owned(), json!(row.metric));
    map.insert("kind".to_owned(), json!(row.limit.kind));
    map.insert("priority".to_owned(), json!(row.limit.priority));
    map.insert("limit".to_owned(), json!(row.limit.text));
    map.insert("delay_ms".to_owned(), json!(row.limit.delay_ms));
    map.insert("source".to_owned(), json!(row.limit.source));
    map.insert("tried".to_owned(), json!(row.tried));
    map.insert("near_misses".to_owned(), json!(row.near_misses));
    if args.compare {
        for (variant, report) in played.reports.iter().skip(1) {
            let tally = same(report, row).map(|row| row.tally.clone()).unwrap_or_default();
            map.insert(variant.name().to_owned(), tally_json(played, &tally));
        }
    }
    json
}

fn tally_json(played: &Played, tally: &Tally) -> Json {
    let time = |at: Option<Duration>| at.map(|at| rounded(played.file_time(at)));
    json!({
        "alerts": tally.alerts, "total_s": rounded(tally.total.as_secs_f64()),
        "longest_s": rounded(tally.longest.as_secs_f64()), "without_data_s": rounded(tally.unknown.as_secs_f64()),
        "hidden_s": rounded(tally.hidden.as_secs_f64()), "share": rounded(share(tally, played)),
        "first_s": time(tally.first), "last_s": time(tally.last),
    })
}

fn alert_json(played: &Played, alert: &TrialAlert) -> Json {
    let time = |at: Duration| rounded(played.file_time(at));
    json!({
        "rule": alert.rule, "metric": alert.metric, "priority": alert.priority, "onset_s": time(alert.onset),
        "start_s": time(alert.start), "end_s": time(alert.end), "open": alert.is_open,
        "without_data_s": rounded(alert.unknown.as_secs_f64()), "hidden_s": rounded(alert.hidden.as_secs_f64()),
        "message": alert.message,
    })
}

/// To a thousandth.
fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_lengths_are_written_for_people() {
        for (seconds, text) in
            [(0.0, "00:00:00"), (93_909.0, "26:05:09"), (2.612, "00:00:02.612"), (-60.0, "-00:01:00")]
        {
            assert_eq!(clock(seconds), text);
        }
        for (millis, text) in [
            (0, "-"),
            (500, "0.5 s"),
            (15_000, "15 s"),
            (59_999, "60.0 s"),
            (185_000, "3 min 05 s"),
            (7_500_000, "2 h 05 min"),
        ] {
            assert_eq!(length(Duration::from_millis(millis)), text);
        }
    }
}
