//! User Index (0x2A9A) and User Control Point (0x2A9F) of the User Data Service 1.1: scales and cuffs for several persons
//! send nothing of a person before they are told that person's consent code.

use super::{GattError, Reader, Report};

/// What is asked of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Make a new user with this consent code, 0 to 9999.
    Register {
        /// The code.
        consent: u16,
    },
    /// Act as this user.
    Consent {
        /// The user's number.
        user: u8,
        /// The code that the user was made with.
        consent: u16,
    },
}

impl Request {
    /// The bytes to write. Subscribe to the indications of 0x2A9F before.
    pub fn encode(self) -> Vec<u8> {
        match self {
            Self::Register { consent } => [&[0x01][..], &consent.to_le_bytes()].concat(),
            Self::Consent { user, consent } => [&[0x02, user][..], &consent.to_le_bytes()].concat(),
        }
    }
}

/// UDS 1.1, 3.3: how a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    /// The op code of the request.
    pub request: u8,
    /// 1 done, 2 not supported, 3 wrong parameter, 4 failed, 5 the consent code is wrong.
    pub outcome: u8,
    /// The number of the user that was made.
    pub user: Option<u8>,
}

const REGISTER: u8 = 0x01;
const SUCCESS: u8 = 0x01;
const RESPONSE: u8 = 0x20;

impl Response {
    /// True if the device did what it was asked.
    pub const fn is_success(self) -> bool {
        self.outcome == SUCCESS
    }

    const fn name(self) -> &'static str {
        match self.outcome {
            SUCCESS => "success",
            2 => "op_code_not_supported",
            3 => "invalid_parameter",
            4 => "operation_failed",
            5 => "user_not_authorized",
            _ => "reserved",
        }
    }
}

/// Reads an answer; also how many bytes follow it.
pub fn parse(payload: &[u8]) -> Result<(Response, usize), GattError> {
    const WHAT: &str = "user control point";
    let mut reader = Reader::new(WHAT, payload);
    let found = reader.u8("op code")?;
    if found != RESPONSE {
        return Err(GattError::Unexpected { what: WHAT, field: "op code", expected: RESPONSE, found });
    }
    let (request, outcome) = (reader.u8("request op code")?, reader.u8("response value")?);
    let user = reader.when(request == REGISTER && outcome == SUCCESS, |reader| reader.u8("user"))?;
    Ok((Response { request, outcome, user }, reader.left()))
}

pub(super) fn report_response(payload: &[u8]) -> Result<Report, GattError> {
    let (response, trailing_bytes) = parse(payload)?;
    let mut report = Report { user: response.user, trailing_bytes, ..Report::default() };
    let request = match response.request {
        REGISTER => Some("register_new_user"),
        2 => Some("consent"),
        3 => Some("delete_user_data"),
        _ => None,
    };
    report.detail("request", request);
    report.detail("response", response.name());
    Ok(report)
}

/// UDS 1.1, 3.2: who uses the device now; 255: nobody who is known.
pub(super) fn report_index(payload: &[u8]) -> Result<Report, GattError> {
    let mut reader = Reader::new("user index", payload);
    let user = Some(reader.u8("user")?).filter(|user| *user != 0xFF);
    let mut report = Report { user, trailing_bytes: reader.left(), ..Report::default() };
    report.detail("user", user);
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_written_and_their_answers_read() {
        assert_eq!(Request::Register { consent: 1234 }.encode(), [0x01, 0xD2, 0x04]);
        assert_eq!(Request::Consent { user: 2, consent: 9999 }.encode(), [0x02, 2, 0x0F, 0x27]);
        assert_eq!(parse(&[0x20, 1, 1, 3]), Ok((Response { request: 1, outcome: 1, user: Some(3) }, 0)));
        let (refused, trailing) = parse(&[0x20, 2, 5]).unwrap();
        assert_eq!((refused.is_success(), refused.name(), trailing), (false, "user_not_authorized", 0));
    }

    #[test]
    fn what_is_no_answer_is_an_error_and_a_user_that_is_missing_too() {
        let error = |payload: &[u8]| parse(payload).unwrap_err().to_string();
        assert_eq!(error(&[0x02]), "user control point packet has 0x02 for its op code, must have 0x20");
        assert_eq!(error(&[0x20, 1, 1]), "user control point packet has 3 bytes, needs 4: user at byte 3 is cut");
    }

    #[test]
    fn nobody_is_no_user() {
        assert_eq!(report_index(&[0xFF]).unwrap().user, None);
        assert_eq!(report_index(&[0]).unwrap().user, Some(0));
    }
}
