//! What an error of SQLite means for people: which fault of the disk or of the file it is, and what to do next.

use rusqlite::{Error, ErrorCode};

use crate::named::named_enum;

named_enum! {
    /// What is wrong with the disk or with the database on it.
    Fault {
        /// `SQLITE_FULL`: no room on the file system, or the database is as large as it may be.
        Full = "full",
        /// `SQLITE_READONLY`: the file system or the file takes no writes.
        ReadOnly = "read_only",
        /// `SQLITE_IOERR`: the system could not read or write.
        InputOutput = "io_error",
        /// `SQLITE_CORRUPT`: what stands in the file is no sound database.
        Corrupt = "corrupt",
        /// `SQLITE_NOTADB`: the file does not even begin like one.
        NotADatabase = "not_a_database",
        /// `SQLITE_CANTOPEN`, `SQLITE_PERM`: the file is missing, or not ours.
        NoAccess = "no_access",
        /// `SQLITE_BUSY`, `SQLITE_LOCKED`, `SQLITE_PROTOCOL`: somebody else holds it.
        Locked = "locked",
        /// `SQLITE_NOMEM`: the machine has no memory left.
        Memory = "no_memory",
        /// Anything else: a defect of this program rather than of the disk.
        Other = "other",
    }
}

impl Fault {
    /// The fault that an error of SQLite tells of.
    pub(super) fn of(error: &Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::ReadOnly) => Self::ReadOnly,
            Some(ErrorCode::SystemIoFailure) => Self::InputOutput,
            Some(ErrorCode::DatabaseCorrupt) => Self::Corrupt,
            Some(ErrorCode::NotADatabase) => Self::NotADatabase,
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => Self::NoAccess,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => {
                Self::Locked
            }
            Some(ErrorCode::OutOfMemory) => Self::Memory,
            _ => Self::Other,
        }
    }

    /// True if the database itself is bad: trying again is no use, it has to be replaced.
    pub(super) const fn is_damage(self) -> bool {
        matches!(self, Self::Corrupt | Self::NotADatabase)
    }

    /// True if the disk may work again later.
    pub(super) const fn may_pass(self) -> bool {
        !self.is_damage() && !matches!(self, Self::Other)
    }

    /// What somebody can do about it; empty where only this program's authors can.
    const fn advice(self) -> &'static str {
        match self {
            Self::Full => "free space on its disk, or raise store.max_mib",
            Self::ReadOnly => {
                "look in the kernel's log why the file system takes no writes, and mount it writable again"
            }
            Self::InputOutput => "look in the kernel's log for errors of the disk or the SD card, and replace it",
            Self::Corrupt | Self::NotADatabase => {
                "it is moved aside and what can be read of it is kept; look in the kernel's log for errors of the disk"
            }
            Self::NoAccess => {
                "the state directory and its files must belong to the user of the service, with mode 0700"
            }
            Self::Locked => "another program holds the database open for writing: end it",
            Self::Memory => "the machine has no memory left: look what takes it",
            Self::Other => "",
        }
    }
}

/// An error of SQLite in words, with its number and what to do next.
pub(super) fn words(error: &Error) -> String {
    let number = error.sqlite_extended_error_code().map(|code| format!(" (SQLite {code})")).unwrap_or_default();
    match Fault::of(error).advice() {
        "" => format!("{error}{number}"),
        advice => format!("{error}{number}; {advice}"),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    #[test]
    fn each_error_of_sqlite_is_a_fault_with_advice_and_only_a_bad_file_is_damage() {
        for (code, fault, is_damage, may_pass, words_of_it) in [
            (ffi::SQLITE_FULL, Fault::Full, false, true, "store.max_mib"),
            (ffi::SQLITE_READONLY, Fault::ReadOnly, false, true, "writable again"),
            (ffi::SQLITE_IOERR, Fault::InputOutput, false, true, "SD card"),
            (ffi::SQLITE_IOERR_FSYNC, Fault::InputOutput, false, true, "(SQLite 1034)"),
            (ffi::SQLITE_CORRUPT, Fault::Corrupt, true, false, "moved aside"),
            (ffi::SQLITE_NOTADB, Fault::NotADatabase, true, false, "moved aside"),
            (ffi::SQLITE_CANTOPEN, Fault::NoAccess, false, true, "user of the service"),
            (ffi::SQLITE_PERM, Fault::NoAccess, false, true, "user of the service"),
            (ffi::SQLITE_BUSY, Fault::Locked, false, true, "another program"),
            (ffi::SQLITE_NOMEM, Fault::Memory, false, true, "memory"),
            (ffi::SQLITE_CONSTRAINT, Fault::Other, false, false, "(SQLite 19)"),
        ] {
            let error = Error::SqliteFailure(ffi::Error::new(code), None);
            let found = Fault::of(&error);
            assert_eq!((found, found.is_damage(), found.may_pass()), (fault, is_damage, may_pass), "{code}");
            assert!(words(&error).contains(words_of_it), "{code}: {}", words(&error));
        }
        assert_eq!(Fault::of(&Error::QueryReturnedNoRows), Fault::Other);
    }
}
