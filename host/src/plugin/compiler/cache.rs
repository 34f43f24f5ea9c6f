//! `Cache`: native code kept in files, each under the name of the plugin and the engine that it is
//! for, and for a while why there is none. Processes share it without a lock: a file is written aside,
//! renamed, and never changed.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::plugin::order::hex;
use crate::sandbox::compile::NativeCode;

/// Where native code is kept, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// The directory. It is made if it is missing; nobody but this user may write in it.
    pub directory: PathBuf,
    /// The most that is kept, in bytes. What was not used for the longest time goes first.
    pub max_size: u64,
    /// How long what nobody uses is kept.
    pub max_age: Duration,
}

/// What a cache holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// How many plugins' code.
    pub entries: usize,
    /// How much it is, in bytes.
    pub size: u64,
    /// How many plugins it is known of that they cannot be compiled within the bounds.
    pub failures: usize,
}

/// The first line of every entry.
const MAGIC: &[u8] = b"scutwork native code, version 1\n";
const ENDING: &str = ".native";
/// The first line of every failure.
const FAILURE_MAGIC: &str = "scutwork failure, version 1\n";
const FAILURE_ENDING: &str = ".failure";
const PART: &str = ".part";

/// How long a failure is believed: a machine may have been short of what it has now.
const FAILURE_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// What a failure may have, in bytes.
const MAX_FAILURE: u64 = 16 << 10;

/// How far from the truth the time of an entry's last use may be, so that using it seldom writes.
const USE_PRECISION: Duration = Duration::from_secs(60 * 60);
/// After how long a file that was written aside belongs to a process that died.
const PART_AGE: Duration = Duration::from_secs(60 * 60);

/// A directory of native code, which nobody but this user could write.
pub(super) struct Cache {
    settings: CacheSettings,
}

/// What an entry is for: a plugin, an engine, and this version of the program.
pub(super) struct Key(String);

/// What a failure is for: a key, and the bounds that were not enough.
pub(super) struct FailureKey(String);

impl CacheSettings {
    /// What is kept in this directory, with bounds that suit most.
    pub fn new(directory: PathBuf) -> Self {
        CacheSettings {
            directory,
            max_size: 1 << 30,
            max_age: Duration::from_secs(30 * 24 * 60 * 60),
        }
    }

    /// Looks at the cache and changes nothing.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn survey(&self) -> Result<Survey, String> {
        let cache = Cache::check(self)?;
        rustix::fs::access(&self.directory, rustix::fs::Access::WRITE_OK)
            .map_err(|error| format!("{} cannot be written: {error}", self.directory.display()))?;
        let mut survey = Survey::default();
        for entry in cache.entries() {
            survey.entries += 1;
            survey.size += entry.size;
        }
        let now = SystemTime::now();
        let failures = cache.files(FAILURE_ENDING);
        survey.failures = failures
            .iter()
            .filter(|entry| entry.is_believed(now))
            .count();
        Ok(survey)
    }
}

impl Key {
    pub(super) fn new(digest: &str, compatibility: &str) -> Key {
        let engine = hex(&Sha256::digest(format!(
            "{} {compatibility}",
            env!("CARGO_PKG_VERSION")
        )));
        Key(format!("{digest}-{}", &engine[..16]))
    }

    /// With other bounds it is another failure.
    pub(super) fn within(&self, memory: u64, time: Duration) -> FailureKey {
        FailureKey(format!("{}-{memory}-{}", self.0, time.as_millis()))
    }
}

impl Cache {
    /// Makes the directory if it is missing, and lets go of what is old.
    ///
    /// # Errors
    /// Why it cannot be used, with the directory's name.
    pub(super) fn open(settings: &CacheSettings) -> Result<Cache, String> {
        let directory = &settings.directory;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| format!("{} cannot be made: {error}", directory.display()))?;
        let cache = Cache::check(settings)?;
        cache.prune();
        Ok(cache)
    }

    /// What others can write could be anything, and it is run unseen.
    fn check(settings: &CacheSettings) -> Result<Cache, String> {
        let directory = &settings.directory;
        let shown = directory.display();
        let metadata = fs::metadata(directory).map_err(|error| format!("{shown}: {error}"))?;
        if !metadata.is_dir() {
            return Err(format!("{shown} is no directory"));
        }
        if !is_ours(&metadata) {
            return Err(format!(
                "{shown} can be written by others; make it this user's alone: chown it and chmod 700"
            ));
        }
        Ok(Cache {
            settings: settings.clone(),
        })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.settings.directory
    }

    /// The code for this key, if it is there, whole and ours.
    pub(super) fn get(&self, key: &Key) -> Option<NativeCode> {
        let path = self.path(key);
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .ok()?;
        let code = read(&mut file, key);
        match code {
            Some(_) => touch(&file),
            None => self.forget(key),
        }
        code
    }

    /// Keeps code. A reader finds all of it or nothing, whenever this process or the machine dies.
    pub(super) fn put(&self, key: &Key, code: &NativeCode) -> io::Result<()> {
        let mut aside = self.aside()?;
        write(&mut aside, key, code.bytes())?;
        aside.as_file().sync_all()?;
        aside.persist(self.path(key)).map_err(|error| error.error)?;
        self.prune();
        Ok(())
    }

    /// Drops an entry. Who reads it at this moment reads on.
    pub(super) fn forget(&self, key: &Key) {
        // Another process may have been first.
        let _ = fs::remove_file(self.path(key));
    }

    /// Why nothing was compiled the last time, if that is not long ago.
    pub(super) fn failure(&self, key: &FailureKey) -> Option<String> {
        let path = self.failure_path(key);
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .ok()?;
        let metadata = file.metadata().ok()?;
        let entry = Entry::new(path, &metadata)?;
        if !is_ours(&metadata) || !entry.is_believed(SystemTime::now()) {
            return None;
        }
        let mut text = String::new();
        file.take(MAX_FAILURE).read_to_string(&mut text).ok()?;
        let why = text.strip_prefix(FAILURE_MAGIC)?;
        let why = why.strip_prefix(&key.0)?.strip_prefix('\n')?;
        Some(why.to_owned())
    }

    /// Keeps why nothing was compiled.
    pub(super) fn put_failure(&self, key: &FailureKey, why: &str) -> io::Result<()> {
        let mut aside = self.aside()?;
        write!(aside, "{FAILURE_MAGIC}{}\n{why}", key.0)?;
        aside.persist(self.failure_path(key))?;
        Ok(())
    }

    fn aside(&self) -> io::Result<NamedTempFile> {
        tempfile::Builder::new()
            .prefix(".")
            .suffix(PART)
            .tempfile_in(&self.settings.directory)
    }

    fn failure_path(&self, key: &FailureKey) -> PathBuf {
        let directory = &self.settings.directory;
        directory.join(format!("{}{FAILURE_ENDING}", key.0))
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.settings.directory.join(format!("{}{ENDING}", key.0))
    }

    /// Lets go of what is too old, and of the oldest of what is too much.
    fn prune(&self) {
        let now = SystemTime::now();
        let mut entries = self.entries();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.used));
        let mut total = 0;
        for entry in entries {
            total += entry.size;
            if total > self.settings.max_size || entry.age(now) > self.settings.max_age {
                // Another process may have been first; what cannot be removed is tried again.
                let _ = fs::remove_file(&entry.path);
            }
        }
        for failure in self.files(FAILURE_ENDING) {
            if !failure.is_believed(now) {
                let _ = fs::remove_file(&failure.path);
            }
        }
        for part in self.files(PART) {
            if part.age(now) > PART_AGE {
                let _ = fs::remove_file(&part.path);
            }
        }
    }

    fn entries(&self) -> Vec<Entry> {
        self.files(ENDING)
    }

    fn files(&self, ending: &str) -> Vec<Entry> {
        let directory = fs::read_dir(&self.settings.directory);
        directory
            .into_iter()
            .flatten()
            .flatten()
            .filter(|file| file.file_name().to_string_lossy().ends_with(ending))
            .filter_map(|file| Entry::of(&file))
            .collect()
    }
}

/// A file as the file system tells of it.
struct Entry {
    path: PathBuf,
    size: u64,
    used: SystemTime,
}

impl Entry {
    fn of(file: &fs::DirEntry) -> Option<Entry> {
        Entry::new(file.path(), &file.metadata().ok()?)
    }

    fn new(path: PathBuf, metadata: &Metadata) -> Option<Entry> {
        metadata.is_file().then_some(())?;
        Some(Entry {
            path,
            size: metadata.len(),
            used: metadata.modified().ok()?,
        })
    }

    /// Zero where the clock was set back since.
    fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.used).unwrap_or_default()
    }

    /// Whether it is a failure of late. One from the future is of no clock that can be believed.
    fn is_believed(&self, now: SystemTime) -> bool {
        now.duration_since(self.used)
            .is_ok_and(|age| age <= FAILURE_AGE)
    }
}

/// Whether this user has it, and nobody else can write it.
fn is_ours(metadata: &Metadata) -> bool {
    const OTHERS_WRITE: u32 = 0o022;
    metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & OTHERS_WRITE == 0
}

/// An entry is the magic line, the key's line, the code's sha256 in hex on a line, and the code. It
/// is read into this process's memory before it is checked, so what is checked is what runs.
fn read(file: &mut File, key: &Key) -> Option<NativeCode> {
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || !is_ours(&metadata) {
        return None;
    }
    let mut content = Vec::new();
    file.read_to_end(&mut content).ok()?;
    let rest = content.strip_prefix(MAGIC)?;
    let rest = rest.strip_prefix(key.0.as_bytes())?.strip_prefix(b"\n")?;
    let (digest, code) = rest.split_at_checked(2 * Sha256::output_size())?;
    let code = code.strip_prefix(b"\n")?;
    if hex(&Sha256::digest(code)).as_bytes() != digest {
        return None;
    }
    let begins = content.len() - code.len();
    content.drain(..begins);
    Some(NativeCode::vouched_for(content))
}

fn write(file: &mut NamedTempFile, key: &Key, code: &[u8]) -> io::Result<()> {
    file.write_all(MAGIC)?;
    writeln!(file, "{}\n{}", key.0, hex(&Sha256::digest(code)))?;
    file.write_all(code)
}

/// Notes that an entry is used. It is no more than a hint for [`Cache::prune`].
fn touch(file: &File) {
    let now = SystemTime::now();
    let is_noted = file
        .metadata()
        .and_then(|metadata| metadata.modified())
        .is_ok_and(|used| now.duration_since(used).unwrap_or_default() < USE_PRECISION);
    if !is_noted {
        let _ = file.set_modified(now);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use tempfile::TempDir;

    use super::*;

    fn cache(directory: &TempDir) -> Cache {
        Cache::open(&CacheSettings::new(directory.path().join("cache"))).unwrap()
    }

    fn key(letter: &str) -> Key {
        Key::new(&letter.repeat(64), "engine")
    }

    fn code(bytes: &[u8]) -> NativeCode {
        NativeCode::vouched_for(bytes.to_vec())
    }

    fn kept(cache: &Cache, key: &Key) -> Option<Vec<u8>> {
        cache.get(key).map(|code| code.bytes().to_vec())
    }

    #[test]
    fn what_is_put_is_found_under_its_own_key_alone() {
        let directory = TempDir::new().unwrap();
        let cache = cache(&directory);
        cache.put(&key("a"), &code(b"native")).unwrap();
        assert_eq!(kept(&cache, &key("a")).unwrap(), b"native");
        assert!(kept(&cache, &key("b")).is_none());
        // Another engine's, and one that was renamed to a name that is not its own.
        assert!(kept(&cache, &Key::new(&"a".repeat(64), "other")).is_none());
        fs::rename(cache.path(&key("a")), cache.path(&key("b"))).unwrap();
        assert!(kept(&cache, &key("b")).is_none());
    }

    #[test]
    fn every_torn_or_rotten_entry_is_dropped() {
        let directory = TempDir::new().unwrap();
        let cache = cache(&directory);
        cache.put(&key("a"), &code(b"native")).unwrap();
        let path = cache.path(&key("a"));
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut rotten = whole.clone();
            rotten[at] ^= 1;
            fs::write(&path, rotten).unwrap();
            assert!(kept(&cache, &key("a")).is_none(), "byte {at}");
            assert!(!path.exists(), "byte {at}");
            fs::write(&path, &whole[..at]).unwrap();
            assert!(kept(&cache, &key("a")).is_none(), "{at} bytes");
        }
        fs::write(&path, &whole).unwrap();
        assert!(kept(&cache, &key("a")).is_some());
    }

    #[test]
    fn what_others_could_have_written_is_not_used() {
        let directory = TempDir::new().unwrap();
        let cache = cache(&directory);
        let path = cache.path(&key("a"));
        cache.put(&key("a"), &code(b"native")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).unwrap();
        assert!(kept(&cache, &key("a")).is_none());

        cache.put(&key("a"), &code(b"native")).unwrap();
        let elsewhere = directory.path().join("elsewhere");
        fs::rename(&path, &elsewhere).unwrap();
        symlink(&elsewhere, &path).unwrap();
        assert!(kept(&cache, &key("a")).is_none());

        let mode = fs::Permissions::from_mode(0o770);
        fs::set_permissions(cache.directory(), mode).unwrap();
        let error = Cache::open(&cache.settings).err().unwrap();
        assert!(error.contains("chmod 700"), "{error}");
        assert!(cache.settings.survey().is_err());
    }

    #[test]
    fn what_is_old_goes_and_the_oldest_of_what_is_too_much() {
        let directory = TempDir::new().unwrap();
        let mut cache = cache(&directory);
        let age = |path: &Path, age: u64| {
            let file = File::options().append(true).open(path).unwrap();
            let then = SystemTime::now() - Duration::from_secs(age);
            file.set_modified(then).unwrap();
        };
        for (letter, days) in [("a", 40), ("b", 20), ("c", 10)] {
            cache.put(&key(letter), &code(&[0; 1000])).unwrap();
            age(&cache.path(&key(letter)), days * 24 * 60 * 60);
        }
        let part = cache.directory().join(".x.part");
        fs::write(&part, "").unwrap();
        age(&part, 2 * 60 * 60);
        cache.prune();
        assert!(!part.exists());
        assert!(kept(&cache, &key("a")).is_none());
        // Using it made it the youngest.
        assert!(kept(&cache, &key("b")).is_some());
        assert_eq!(cache.settings.survey().unwrap().entries, 2);

        cache.settings.max_size = 2500;
        cache.put(&key("d"), &code(&[0; 1000])).unwrap();
        assert!(kept(&cache, &key("c")).is_none());
        assert!(kept(&cache, &key("b")).is_some());
        assert!(kept(&cache, &key("d")).is_some());
    }
}
