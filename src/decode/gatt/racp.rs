//! Record Access Control Point (0x2A52) of the Glucose Service 1.0.1: requests are written, answers are read.

use super::{Detail, GattError, Reader, Report};

/// Which records a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Records {
    /// All.
    All,
    /// From this sequence number on.
    From(u16),
    /// Up to this sequence number.
    To(u16),
    /// From one sequence number to another, both included.
    Between(u16, u16),
    /// The oldest.
    First,
    /// The newest.
    Last,
}

/// What is asked of a meter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Send these records.
    Report(Records),
    /// Say how many these are.
    Count(Records),
    /// Delete these. Nothing sends this unless the configuration says so.
    Delete(Records),
    /// Stop sending.
    Abort,
}

/// GLS 1.0.1, 3.4.1: the filter is a sequence number.
const BY_SEQUENCE: u8 = 0x01;

impl Request {
    /// The bytes to write. Subscribe to 0x2A18, 0x2A34 and 0x2A52 before.
    pub fn encode(self) -> Vec<u8> {
        let (op_code, records) = match self {
            Self::Report(records) => (0x01, records),
            Self::Delete(records) => (0x02, records),
            Self::Abort => return vec![0x03, 0x00],
            Self::Count(records) => (0x04, records),
        };
        let mut bytes = vec![op_code];
        let (operator, bounds) = match records {
            Records::All => (0x01, [None, None]),
            Records::To(last) => (0x02, [Some(last), None]),
            Records::From(first) => (0x03, [Some(first), None]),
            Records::Between(first, last) => (0x04, [Some(first), Some(last)]),
            Records::First => (0x05, [None, None]),
            Records::Last => (0x06, [None, None]),
        };
        bytes.push(operator);
        let [first, _] = bounds;
        bytes.extend(first.map(|_| BY_SEQUENCE));
        bytes.extend(bounds.into_iter().flatten().flat_map(u16::to_le_bytes));
        bytes
    }
}

/// GLS 1.0.1, 3.4.1: how a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done; every record was sent.
    Success,
    /// The meter does not know the request.
    OpCodeNotSupported,
    /// The operator does not fit the request.
    InvalidOperator,
    /// The meter does not know the operator: ask for all records.
    OperatorNotSupported,
    /// The operand does not fit the operator.
    InvalidOperand,
    /// There are no such records.
    NoRecordsFound,
    /// The abort did not work.
    AbortUnsuccessful,
    /// The procedure could not be finished.
    ProcedureNotCompleted,
    /// The meter does not know the operand: ask for all records.
    OperandNotSupported,
    /// The meter is at something else.
    ServerBusy,
    /// A number without a meaning.
    Reserved(u8),
}

impl Outcome {
    const fn of(number: u8) -> Self {
        match number {
            1 => Self::Success,
            2 => Self::OpCodeNotSupported,
            3 => Self::InvalidOperator,
            4 => Self::OperatorNotSupported,
            5 => Self::InvalidOperand,
            6 => Self::NoRecordsFound,
            7 => Self::AbortUnsuccessful,
            8 => Self::ProcedureNotCompleted,
            9 => Self::OperandNotSupported,
            10 => Self::ServerBusy,
            other => Self::Reserved(other),
        }
    }

    /// True if the meter refuses to filter by sequence number, so that all records have to be asked for.
    pub const fn refuses_filter(self) -> bool {
        matches!(self, Self::InvalidOperator | Self::OperatorNotSupported | Self::OperandNotSupported)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::OpCodeNotSupported => "op_code_not_supported",
            Self::InvalidOperator => "invalid_operator",
            Self::OperatorNotSupported => "operator_not_supported",
            Self::InvalidOperand => "invalid_operand",
            Self::NoRecordsFound => "no_records_found",
            Self::AbortUnsuccessful => "abort_unsuccessful",
            Self::ProcedureNotCompleted => "procedure_not_completed",
            Self::OperandNotSupported => "operand_not_supported",
            Self::ServerBusy => "server_busy",
            Self::Reserved(_) => "reserved",
        }
    }
}

/// What a meter answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Response {
    /// So many records.
    Count(u16),
    /// The end of a request.
    Ended {
        /// The op code of the request.
        request: u8,
        /// How it ended.
        outcome: Outcome,
    },
    /// An op code that is no answer.
    Other {
        /// The op code.
        op_code: u8,
        /// The operator.
        operator: u8,
    },
}

/// Reads an answer; also how many bytes follow it.
pub fn parse(payload: &[u8]) -> Result<(Response, usize), GattError> {
    let mut reader = Reader::new("record access control point", payload);
    let (op_code, operator) = (reader.u8("op code")?, reader.u8("operator")?);
    let response = match op_code {
        0x05 => Response::Count(reader.u16("number of records")?),
        0x06 => Response::Ended {
            request: reader.u8("request op code")?,
            outcome: Outcome::of(reader.u8("response code")?),
        },
        _ => Response::Other { op_code, operator },
    };
    // What follows an unknown op code is its operand, of whatever length.
    let trailing = if matches!(response, Response::Other { .. }) { 0 } else { reader.left() };
    Ok((response, trailing))
}

pub(super) fn report(payload: &[u8]) -> Result<Report, GattError> {
    let (response, trailing_bytes) = parse(payload)?;
    let mut report = Report { trailing_bytes, ..Report::default() };
    match response {
        Response::Count(count) => report.detail("number_of_records", count),
        Response::Ended { request, outcome } => {
            let name = match request {
                0x01 => Some("report_records"),
                0x02 => Some("delete_records"),
                0x03 => Some("abort"),
                0x04 => Some("report_number_of_records"),
                _ => None,
            };
            report.detail("request", name);
            report.detail("response", outcome.name());
        }
        Response::Other { op_code, operator } => {
            report.detail("op_code", op_code);
            report.detail("operator", Detail::from(operator));
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_written_as_the_service_defines_them() {
        for (request, bytes) in [
            (Request::Report(Records::All), &[1, 1][..]),
            (Request::Report(Records::From(0x0123)), &[1, 3, 1, 0x23, 0x01]),
            (Request::Report(Records::To(9)), &[1, 2, 1, 9, 0]),
            (Request::Report(Records::Between(5, 0x0102)), &[1, 4, 1, 5, 0, 2, 1]),
            (Request::Report(Records::First), &[1, 5]),
            (Request::Report(Records::Last), &[1, 6]),
            (Request::Count(Records::All), &[4, 1]),
            (Request::Count(Records::From(7)), &[4, 3, 1, 7, 0]),
            (Request::Delete(Records::All), &[2, 1]),
            (Request::Abort, &[3, 0]),
        ] {
            assert_eq!(request.encode(), bytes, "{request:?}");
        }
    }

    #[test]
    fn answers_say_how_a_request_ended() {
        assert_eq!(parse(&[6, 0, 1, 1]), Ok((Response::Ended { request: 1, outcome: Outcome::Success }, 0)));
        assert_eq!(parse(&[5, 0, 0xF4, 1]), Ok((Response::Count(500), 0)));
        assert_eq!(parse(&[7, 0, 1, 2, 3]), Ok((Response::Other { op_code: 7, operator: 0 }, 0)));
        let refusing: Vec<u8> = (0..=11).filter(|number| Outcome::of(*number).refuses_filter()).collect();
        assert_eq!(refusing, [3, 4, 9]);
        assert_eq!(Outcome::of(11), Outcome::Reserved(11));
    }
}
