//! Whom the daemon runs as, or would: its user and groups.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The user of the packaged service.
const SERVICE_USER: &str = "vitalbridge";

/// A user with its groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// Its name, or its number where it has none.
    pub(super) name: String,
    pub(super) uid: u32,
    /// Of its own group; the others are beside it in `gids`.
    pub(super) gid: u32,
    pub(super) gids: BTreeSet<u32>,
    /// The names of its groups; empty: they are not known.
    pub(super) groups: BTreeSet<String>,
}

impl Account {
    /// The user of the daemon that runs; else that of the package's service, if there is one; else who runs this.
    pub(super) fn of_daemon(daemon: Option<u32>) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let (users, groups) = (read("/etc/passwd"), read("/etc/group"));
        let status = |pid: &str| read(&format!("/proc/{pid}/status"));
        if let Some(found) = daemon.and_then(|pid| of_process(&status(&pid.to_string()), &users, &groups)) {
            return found;
        }
        let own = || of_process(&status("self"), &users, &groups);
        of_user(SERVICE_USER, &users, &groups).or_else(own).unwrap_or_default()
    }

    pub(super) const fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Whether it may read and write a file with this owner, group and mode.
    pub(super) fn may_write(&self, uid: u32, gid: u32, mode: u32) -> bool {
        self.may(0o6, uid, gid, mode)
    }

    /// Whether it has these rights, one octal digit of them.
    fn may(&self, rights: u32, uid: u32, gid: u32, mode: u32) -> bool {
        let shift = if self.is_root() {
            return true;
        } else if uid == self.uid {
            6
        } else if self.gids.contains(&gid) {
            3
        } else {
            0
        };
        (mode >> shift) & rights == rights
    }

    /// What keeps it from reading a file: the file, or the first folder on the way to it. `None`: nothing does, or who asks may
    /// not look there either.
    pub(super) fn kept_from(&self, file: &Path) -> Option<Refusal> {
        let real = std::fs::canonicalize(file).ok()?;
        let mut way: Vec<&Path> = real.ancestors().collect();
        way.reverse();
        way.into_iter().find_map(|path| {
            let found = std::fs::metadata(path).ok()?;
            let (is_folder, mode) = (found.is_dir(), found.mode() & 0o777);
            let rights = if path == real { 0o4 } else { 0o1 };
            (!self.may(rights, found.uid(), found.gid(), mode)).then(|| Refusal {
                path: path.to_owned(),
                is_folder,
                is_its_own: found.uid() == self.uid,
                mode,
            })
        })
    }

    /// The name of its own group.
    pub(super) fn own_group(&self) -> String {
        Self::group_name(self.gid)
    }

    /// The name of a group of this machine.
    pub(super) fn group_name(gid: u32) -> String {
        let groups = std::fs::read_to_string(Path::new("/etc/group")).unwrap_or_default();
        entries(&groups)
            .find(|fields| number(fields, 2) == Some(gid))
            .map_or_else(|| gid.to_string(), |fields| name(&fields))
    }

    /// A user of tests with these groups.
    #[cfg(test)]
    pub(super) fn named(name: &str, groups: &[&str]) -> Self {
        let gids = groups.iter().enumerate().filter_map(|(place, _)| u32::try_from(place + 20).ok()).collect();
        Self {
            name: name.to_owned(),
            uid: 999,
            gid: 64_999,
            gids,
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        }
    }
}

/// A file that a user may not read, or a folder that it may not go through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) path: PathBuf,
    pub(super) is_folder: bool,
    /// It belongs to the user all the same.
    pub(super) is_its_own: bool,
    pub(super) mode: u32,
}

impl Refusal {
    /// What opens it to this user and to nobody else.
    pub(super) fn cure(&self, account: &Account) -> String {
        let (path, mode) = (self.path.display(), if self.is_folder { 750 } else { 640 });
        if self.is_its_own {
            return format!("`sudo chmod u+rX {path}`");
        }
        format!("`sudo chown root:{} {path}` and `sudo chmod {mode} {path}`", account.own_group())
    }
}

/// The lines of passwd(5) or group(5).
fn entries(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect())
}

fn number(fields: &[&str], place: usize) -> Option<u32> {
    fields.get(place)?.parse().ok()
}

fn name(fields: &[&str]) -> String {
    fields.first().copied().unwrap_or_default().to_owned()
}

fn of_user(user: &str, users: &str, groups: &str) -> Option<Account> {
    let fields = entries(users).find(|fields| fields.first() == Some(&user))?;
    let (uid, gid) = (number(&fields, 2)?, number(&fields, 3)?);
    let is_member = |fields: &[&str]| {
        let members = fields.get(3).copied().unwrap_or_default();
        members.split(',').any(|member| member == user) || number(fields, 2) == Some(gid)
    };
    let of = entries(groups).filter(|fields| is_member(fields));
    let mut account = Account { name: user.to_owned(), uid, gid, gids: BTreeSet::from([gid]), groups: BTreeSet::new() };
    for fields in of {
        account.gids.extend(number(&fields, 2));
        account.groups.insert(name(&fields));
    }
    Some(account)
}

/// From /proc/PID/status, which has the groups that systemd gave beside those of the user.
fn of_process(status: &str, users: &str, groups: &str) -> Option<Account> {
    let line = |start: &str| status.lines().find_map(|line| line.strip_prefix(start));
    // Real, effective, saved, file system.
    let second = |line: &str| line.split_whitespace().nth(1)?.parse::<u32>().ok();
    let (uid, gid) = (second(line("Uid:")?)?, second(line("Gid:")?)?);
    let beside = line("Groups:").unwrap_or_default().split_whitespace().filter_map(|number| number.parse().ok());
    let gids: BTreeSet<u32> = beside.chain([gid]).collect();
    let user = entries(users).find(|fields| number(fields, 2) == Some(uid)).map(|fields| name(&fields));
    let of = entries(groups).filter(|fields| number(fields, 2).is_some_and(|gid| gids.contains(&gid)));
    let groups = of.map(|fields| name(&fields)).collect();
    Some(Account { name: user.unwrap_or_else(|| uid.to_string()), uid, gid, gids, groups })
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str =
        "root:x:0:0:root:/root:/bin/bash\nvitalbridge:x:998:997::/var/lib/vitalbridge:/usr/sbin/nologin\n";
    const GROUPS: &str = "root:x:0:\ndialout:x:20:pi,vitalbridge\nbluetooth:x:111:pi\nvitalbridge:x:997:\n";

    #[test]
    fn a_users_groups_are_those_that_name_it_and_its_own() {
        let found = of_user("vitalbridge", USERS, GROUPS).unwrap();
        assert_eq!((found.uid, &found.gids), (998, &BTreeSet::from([20, 997])));
        assert_eq!(found.groups, BTreeSet::from(["dialout".to_owned(), "vitalbridge".to_owned()]));
        assert_eq!(of_user("nobody", USERS, GROUPS), None);
    }

    #[test]
    fn a_process_has_the_groups_that_systemd_gave_it() {
        let status = "Name:\tvitalbridge\nUid:\t998\t998\t998\t998\nGid:\t997\t997\t997\t997\nGroups:\t20 111 997 \n";
        let found = of_process(status, USERS, GROUPS).unwrap();
        assert_eq!((found.name.as_str(), found.uid), ("vitalbridge", 998));
        assert!(found.groups.contains("bluetooth"), "{found:?}");
        assert_eq!(of_process("", USERS, GROUPS), None);
        assert!(!Account::of_daemon(Some(std::process::id())).name.is_empty());
    }

    #[test]
    fn who_may_write_is_said_by_owner_group_and_mode() {
        let account = Account { name: "v".to_owned(), uid: 998, gids: BTreeSet::from([20]), ..Account::default() };
        let root = Account { uid: 0, ..account.clone() };
        for (uid, gid, mode, may) in [
            (0, 20, 0o660, true),
            (0, 20, 0o640, false),
            (0, 5, 0o660, false),
            (0, 5, 0o666, true),
            (998, 5, 0o600, true),
            // The owner's rights hold for the owner, also where they are fewer.
            (998, 20, 0o060, false),
        ] {
            assert_eq!(account.may_write(uid, gid, mode), may, "{uid} {gid} {mode:o}");
            assert!(root.may_write(uid, gid, mode));
        }
    }

    #[test]
    fn what_keeps_a_user_from_a_file_is_the_first_thing_on_the_way_that_is_closed() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let (folder, file) = (dir.path().join("closed"), dir.path().join("closed/file"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(&file, "").unwrap();
        let modes = |of_folder, of_file| {
            for (path, mode) in [(dir.path(), 0o755), (folder.as_path(), of_folder), (file.as_path(), of_file)] {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
            }
        };
        let stranger = Account { name: "v".to_owned(), uid: 4711, gid: 4712, ..Account::default() };
        for (of_folder, of_file, closed, cure) in [
            (0o755, 0o644, None, ""),
            (0o711, 0o644, None, ""),
            (0o755, 0o600, Some(&file), "chmod 640"),
            (0o700, 0o644, Some(&folder), "chmod 750"),
        ] {
            modes(of_folder, of_file);
            let found = stranger.kept_from(&file);
            assert_eq!(found.as_ref().map(|refusal| &refusal.path), closed, "{of_folder:o} {of_file:o}");
            let told = found.map(|refusal| refusal.cure(&stranger)).unwrap_or_default();
            assert!(told.contains(cure) && (told.is_empty() || told.contains("chown root:4712 ")), "{told}");
        }
        let root = Account::default();
        assert_eq!(root.kept_from(&file), None);
        // The owner may be kept from it too, by the mode alone.
        modes(0o755, 0o044);
        let owner = std::fs::metadata(&file).unwrap().uid();
        let owner = Account { uid: owner, ..stranger };
        if !owner.is_root() {
            assert!(owner.kept_from(&file).unwrap().cure(&owner).contains("chmod u+rX"));
        }
        assert_eq!(owner.kept_from(&dir.path().join("nothing")), None);
        modes(0o755, 0o644);
    }
}
