//! Why BlueZ did not do something, as a type, and in words that say what to do next.

use std::time::Duration;

use zbus::DBusError as _;

/// A step that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{doing}: {cause}")]
pub struct BluezError {
    /// The step.
    pub doing: &'static str,
    /// Why.
    pub cause: Cause,
}

/// Why a step failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// There is no bus, or it has died.
    #[error("the D-Bus system bus cannot be reached ({0}); start it with `systemctl start dbus`")]
    NoBus(String),
    /// The bus does not let this user talk to BlueZ.
    #[error("this user may not use Bluetooth; use root, or add the user to the group `bluetooth` ({0})")]
    AccessDenied(String),
    /// Nobody owns `org.bluez`.
    #[error("bluetoothd does not run; start it with `systemctl start bluetooth` (Debian: apt install bluez)")]
    ServiceUnknown,
    /// bluetoothd runs and has no adapter, or not the one that was named.
    #[error("no Bluetooth adapter{0}; plug one in, and see what `rfkill list` and `bluetoothctl list` say")]
    NoAdapter(String),
    /// The adapter is off (`org.bluez.Error.NotReady`).
    #[error(
        "the Bluetooth adapter is off; if that is not meant, switch it on with `bluetoothctl power on` (after `rfkill unblock \
         bluetooth` if it is blocked)"
    )]
    NotPowered,
    /// A switch or the kernel keeps the adapter off.
    #[error("the Bluetooth adapter is blocked; `rfkill unblock bluetooth` releases it if no hardware switch is off")]
    Blocked,
    /// The same is being done already, by this or another program.
    #[error("BlueZ is still busy with the same thing; wait half a minute, and end other programs that scan or pair")]
    InProgress,
    /// Already so: for a pairing, there is a bond.
    #[error("it is there already; to start afresh, remove it first with `vitalbridge devices remove ADDRESS`")]
    AlreadyExists,
    /// The peer is not connected.
    #[error("it is not connected")]
    NotConnected,
    /// No link could be made.
    #[error("no connection was made ({0}); bring it close, wake it, and see that no phone is connected to it")]
    ConnectionFailed(String),
    /// The peer refused, or the passkey was wrong.
    #[error(
        "the device refused to pair; put it into pairing mode (its manual says how, a cuff often shows `Pr` or `P`), and if \
         it shows a passkey, enter that one"
    )]
    AuthenticationFailed,
    /// Ended before it was done: by one of the sides, or with the link.
    #[error("the pairing was broken off; keep the device in pairing mode and close by, and try again")]
    AuthenticationCanceled,
    /// Refused by one of the sides.
    #[error("the pairing was rejected; put the device into pairing mode, and confirm on both sides")]
    AuthenticationRejected,
    /// The other side did not go on.
    #[error("the device did not answer while pairing; put it into pairing mode again, and be quicker with the passkey")]
    AuthenticationTimeout,
    /// BlueZ does not know the object (any more): it forgets what it has not heard for half a minute.
    #[error(
        "BlueZ does not know it (any more); `vitalbridge scan` shows what is near, `vitalbridge devices` what is known"
    )]
    UnknownObject,
    /// The named device does not advertise; its name and the seconds of listening.
    #[error(
        "{0} was not heard in {1} s; wake it, put it into pairing mode, bring it close, and end its connection to a phone; \
         `vitalbridge scan --all` shows what is heard"
    )]
    NotHeard(String, u64),
    /// Several devices have the name; their addresses.
    #[error("several devices have this name; name one by its address: {0}")]
    Ambiguous(String),
    /// BlueZ or the adapter cannot.
    #[error("BlueZ or this adapter cannot do that ({0})")]
    NotSupported(String),
    /// A limit of the bus is used up: somebody leaks match rules or names.
    #[error("a limit of the D-Bus system bus is used up ({0}); restart the program that leaks")]
    LimitsExceeded(String),
    /// No answer in time.
    #[error("no answer within {} s; if it stays so, restart BlueZ with `systemctl restart bluetooth`", .0.as_secs_f32())]
    Timeout(Duration),
    /// Anything else.
    #[error("{name}: {text}")]
    Other {
        /// The D-Bus name of the error.
        name: String,
        /// What it says.
        text: String,
    },
}

impl BluezError {
    pub(super) const fn new(doing: &'static str, cause: Cause) -> Self {
        Self { doing, cause }
    }

    pub(super) fn from_bus(doing: &'static str, error: &zbus::Error) -> Self {
        Self { doing, cause: Cause::from_bus(error) }
    }
}

impl Cause {
    fn from_bus(error: &zbus::Error) -> Self {
        match error {
            zbus::Error::MethodError(name, text, _) => Self::named(name.as_str(), text.as_deref().unwrap_or_default()),
            zbus::Error::FDO(error) => match error.as_ref() {
                zbus::fdo::Error::ZBus(error) => Self::from_bus(error),
                error => Self::named(error.name().as_str(), error.description().unwrap_or_default()),
            },
            zbus::Error::InputOutput(_)
            | zbus::Error::Connection(..)
            | zbus::Error::Address(_)
            | zbus::Error::Handshake(_) => Self::NoBus(error.to_string()),
            other => Self::Other { name: "unreadable answer".to_owned(), text: other.to_string() },
        }
    }

    /// By the name that BlueZ (`doc/device-api.txt`, `doc/adapter-api.txt`) or the bus gives an error.
    fn named(name: &str, text: &str) -> Self {
        let owned = || text.to_owned();
        match name.strip_prefix("org.bluez.Error.").or_else(|| name.strip_prefix("org.freedesktop.DBus.Error.")) {
            Some("NotReady") => Self::NotPowered,
            Some("Blocked") => Self::Blocked,
            Some("InProgress") => Self::InProgress,
            Some("AlreadyExists") => Self::AlreadyExists,
            Some("NotConnected") => Self::NotConnected,
            Some("ConnectionAttemptFailed") => Self::ConnectionFailed(owned()),
            // What a failed link says instead when it was LE: "le-connection-abort-by-local" and the like.
            Some("Failed") if text.starts_with("le-connection-") || text.starts_with("br-connection-") => {
                Self::ConnectionFailed(owned())
            }
            Some("AuthenticationFailed") => Self::AuthenticationFailed,
            Some("AuthenticationCanceled") => Self::AuthenticationCanceled,
            Some("AuthenticationRejected") => Self::AuthenticationRejected,
            Some("AuthenticationTimeout") => Self::AuthenticationTimeout,
            // A device that has gone is no object; `UnknownMethod` is what bluetoothd says of a method on no object.
            Some("DoesNotExist" | "UnknownObject" | "UnknownMethod" | "UnknownInterface") => Self::UnknownObject,
            Some("ServiceUnknown" | "NameHasNoOwner") => Self::ServiceUnknown,
            Some("LimitsExceeded") => Self::LimitsExceeded(owned()),
            Some("AccessDenied" | "AuthFailed" | "NotPermitted" | "NotAuthorized") => Self::AccessDenied(owned()),
            Some("NotSupported") => Self::NotSupported(owned()),
            Some("NoServer" | "NoNetwork" | "BadAddress" | "Disconnected") => Self::NoBus(owned()),
            _ => Self::Other { name: name.to_owned(), text: owned() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_of_bluez_and_of_the_bus_has_its_cause() {
        for (name, text, expected) in [
            ("org.bluez.Error.NotReady", "Resource Not Ready", Cause::NotPowered),
            ("org.bluez.Error.Blocked", "Blocked through rfkill", Cause::Blocked),
            ("org.bluez.Error.InProgress", "In Progress", Cause::InProgress),
            ("org.bluez.Error.AlreadyExists", "Already Exists", Cause::AlreadyExists),
            ("org.bluez.Error.AuthenticationFailed", "Authentication Failed", Cause::AuthenticationFailed),
            ("org.bluez.Error.AuthenticationTimeout", "", Cause::AuthenticationTimeout),
            ("org.bluez.Error.Failed", "le-connection-abort-by-local", {
                Cause::ConnectionFailed("le-connection-abort-by-local".to_owned())
            }),
            ("org.bluez.Error.DoesNotExist", "Does Not Exist", Cause::UnknownObject),
            ("org.freedesktop.DBus.Error.UnknownObject", "", Cause::UnknownObject),
            ("org.freedesktop.DBus.Error.ServiceUnknown", "", Cause::ServiceUnknown),
            ("org.freedesktop.DBus.Error.LimitsExceeded", "rules", Cause::LimitsExceeded("rules".to_owned())),
            ("org.freedesktop.DBus.Error.AccessDenied", "no", Cause::AccessDenied("no".to_owned())),
            ("org.bluez.Error.Failed", "odd", {
                Cause::Other { name: "org.bluez.Error.Failed".to_owned(), text: "odd".to_owned() }
            }),
        ] {
            assert_eq!(Cause::named(name, text), expected);
        }
    }
}
