//! The profiles that can be named: the built-in ones and those of a directory, of which a file goes before a built-in
//! profile of the same id.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::read_bounded;
use crate::decode::self_test;
use crate::document::Problems;
use crate::profile::{Models, Profile, built_in, built_in_ids, built_in_text, nearest_of};

/// Where an installer's own profiles are looked for unless another directory is named.
pub const DEFAULT_DEVICES_DIR: &str = "/etc/vitalbridge/devices";

/// Profiles of a directory; the files after them, by name, are a problem.
const MAX_FILES: usize = 256;

/// A profile of the directory. Its id is the name of its file, so that a broken one is known by it too.
#[derive(Debug, Clone)]
pub struct OwnProfile {
    /// Its id.
    pub id: String,
    /// Its file.
    pub file: PathBuf,
    /// What the file says; empty if it cannot be read.
    pub text: String,
    /// The profile, or everything that is wrong with it.
    pub parsed: Result<Arc<Profile>, Problems>,
}

/// The profiles that can be named.
#[derive(Debug, Clone, Default)]
pub struct Devices {
    folder: Option<PathBuf>,
    own: Vec<OwnProfile>,
}

impl Devices {
    /// Those of the default directory, if it exists, beside the built-in ones.
    ///
    /// # Errors
    /// The directory is there and cannot be read.
    pub fn of_default_dir() -> io::Result<Self> {
        match Self::read(Path::new(DEFAULT_DEVICES_DIR)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            other => other,
        }
    }

    /// Those of a directory beside the built-in ones: its files `*.toml`, in the order of their names. A broken file is
    /// kept with its problems.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn read(folder: &Path) -> io::Result<Self> {
        let mut files = BTreeSet::new();
        for entry in std::fs::read_dir(folder)? {
            let file = entry?.path();
            // Editors leave `.#name.toml` and the like.
            let is_hidden = file.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if !is_hidden && file.extension().is_some_and(|extension| extension == "toml") {
                files.insert(file);
            }
        }
        let own = files.into_iter().enumerate().map(|(place, file)| own_profile(file, place < MAX_FILES)).collect();
        Ok(Self { folder: Some(folder.to_owned()), own })
    }

    /// The directory, if there is one.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// The directory's profiles, in the order of their ids.
    pub fn own(&self) -> &[OwnProfile] {
        &self.own
    }

    /// The directory's profile of this id.
    pub fn own_of(&self, id: &str) -> Option<&OwnProfile> {
        self.own.iter().find(|own| own.id == id)
    }

    /// The directory's profiles that stand in the place of a built-in one.
    pub fn replacing(&self) -> impl Iterator<Item = &OwnProfile> {
        self.own.iter().filter(|own| built_in_text(&own.id).is_some())
    }

    /// Every problem of the directory's files, as `FILE:LINE: what`.
    pub fn problems(&self) -> Vec<String> {
        let of_file = |own: &OwnProfile| {
            let problems = own.parsed.as_ref().err().map_or(&[][..], Problems::as_slice);
            problems.iter().map(|problem| problem.at(&own.file.display().to_string())).collect::<Vec<_>>()
        };
        self.own.iter().flat_map(of_file).collect()
    }

    /// The profile of this id; `None` if there is none. One of the directory goes before a built-in one, also if it is
    /// broken: whoever replaces a profile does not want the old one.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn find(&self, id: &str) -> Option<Result<Arc<Profile>, Problems>> {
        match self.own_of(id) {
            Some(own) => Some(own.parsed.clone()),
            None => built_in(id),
        }
    }

    /// The TOML of the profile of this id.
    pub fn text(&self, id: &str) -> Option<&str> {
        self.own_of(id).map(|own| own.text.as_str()).or_else(|| built_in_text(id))
    }

    /// Every id, in the order of the alphabet.
    pub fn ids(&self) -> BTreeSet<&str> {
        let own = self.own.iter().map(|own| own.id.as_str());
        built_in_ids().map(|id: &str| id).chain(own).collect()
    }

    /// The Bluetooth models among them: those of the directory, then the built-in ones that no file replaces.
    pub fn models(&self) -> Models {
        let own = self.own.iter().filter_map(|own| own.parsed.clone().ok());
        let rest = built_in_ids().filter(|id| self.own_of(id).is_none()).filter_map(|id| built_in(id)?.ok());
        Models::new(own.chain(rest))
    }

    /// The ids that are most like `id`, nearest first, at most three.
    pub fn nearest(&self, id: &str) -> Vec<&str> {
        nearest_of(id, self.ids())
    }
}

fn own_profile(file: PathBuf, is_within_bound: bool) -> OwnProfile {
    let id = file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let one = |message: String| {
        let mut problems = Problems::default();
        problems.add_at_line(0, message);
        problems
    };
    if !is_within_bound {
        let parsed = Err(one(format!("a directory has at most {MAX_FILES} profiles")));
        return OwnProfile { id, file, text: String::new(), parsed };
    }
    match read_bounded(&file) {
        Ok(text) => OwnProfile { parsed: proven(&text, Some(&id)), id, file, text },
        Err(error) => {
            let parsed = Err(one(format!("it cannot be read: {error}")));
            OwnProfile { id, file, text: String::new(), parsed }
        }
    }
}

/// A profile that may be used: its schema is right, its own tests hold, and one of the directory has the id of its file.
pub(super) fn proven(text: &str, file_id: Option<&str>) -> Result<Arc<Profile>, Problems> {
    let profile = Arc::new(Profile::parse(text)?);
    let mut problems = Problems::default();
    if let Some(id) = file_id.filter(|id| *id != profile.id()) {
        let line = text.lines().position(|line| line.starts_with("id")).map_or(0, |place| place + 1);
        problems.add_at_line(line, format!("the id `{}` must be the name of the file, `{id}`", profile.id()));
    }
    for failure in self_test::as_they_are(&profile) {
        problems.add_at_line(failure.line, failure.message);
    }
    if problems.is_empty() { Ok(profile) } else { Err(problems) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with these files.
    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    #[test]
    fn a_file_stands_in_the_place_of_a_built_in_profile_also_if_it_is_broken() {
        let good = built_in_text("nonin-df8").unwrap().replace("(once a second)", "(ours)");
        let dir = folder(&[("nonin-df8.toml", &good), ("contec-v7.toml", "schema = 1\n"), ("notes.txt", "x")]);
        let devices = Devices::read(dir.path()).unwrap();
        assert!(devices.find("nonin-df8").unwrap().unwrap().name().ends_with("(ours)"));
        assert!(devices.find("contec-v7").unwrap().is_err());
        assert!(devices.find("nonin-df2").unwrap().is_ok());
        assert!(devices.find("notes").is_none());
        assert_eq!(devices.replacing().map(|own| own.id.as_str()).collect::<Vec<_>>(), ["contec-v7", "nonin-df8"]);
        assert_eq!(devices.ids().len(), built_in_ids().count());
    }

    #[test]
    fn every_problem_of_every_file_has_its_file_and_line() {
        let text = built_in_text("nonin-df8").unwrap();
        let untrue = text.replace("pulse_rate = 130", "pulse_rate = 131").replace("id = \"nonin-df8\"", "id = \"c\"");
        let dir = folder(&[
            ("a.toml", text),
            ("b.toml", &text.replace("schema = 1", "schema = 2").replace("lock = 2", "lock = 99")),
            ("c.toml", &untrue),
            (".#d.toml", "left by an editor"),
        ]);
        std::fs::write(dir.path().join("e.toml"), [0xFF, 0xFE]).unwrap();
        let problems = Devices::read(dir.path()).unwrap().problems();
        let place = |name: &str| dir.path().join(name).display().to_string();
        let line = |part: &str| text.lines().position(|line| line.contains(part)).unwrap() + 1;
        for expected in [
            format!("{}:2: the id `nonin-df8` must be the name of the file, `a`", place("a.toml")),
            format!("{}:1: schema 2 is not known", place("b.toml")),
            format!("{}:{}: lock 99 must be 1 to 20", place("b.toml"), line("lock = 2")),
            format!("{}:{}: test \"pulse rate above 127\"", place("c.toml"), line("[[test]]")),
            format!("{}: it cannot be read", place("e.toml")),
        ] {
            assert!(problems.iter().any(|problem| problem.starts_with(&expected)), "{expected}\n{problems:#?}");
        }
        assert_eq!(problems.len(), 5, "{problems:#?}");
    }

    #[test]
    fn an_unknown_id_leads_to_the_nearest_of_the_directory_too() {
        let text = built_in_text("nonin-df8").unwrap().replace("id = \"nonin-df8\"", "id = \"acme-ox1\"");
        let dir = folder(&[("acme-ox1.toml", &text)]);
        let devices = Devices::read(dir.path()).unwrap();
        assert!(devices.find("acme-ox1").unwrap().is_ok(), "{:?}", devices.problems());
        assert_eq!(devices.nearest("acme-ox").first(), Some(&"acme-ox1"));
        assert!(Devices::read(&dir.path().join("nowhere")).is_err());
    }
}
