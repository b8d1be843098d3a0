//! What is on the simulated disk: the files as they are seen, and as a loss of power may leave them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::content::Content;
use super::random::Random;
use crate::io::Entry;

/// What a disk writes whole or not at all.
const SECTOR: u64 = 512;

/// Files and names, both as they are seen and as they were last synced.
#[derive(Clone, Default)]
pub(super) struct Disk {
    names: BTreeMap<PathBuf, u64>,
    synced_names: BTreeMap<PathBuf, u64>,
    /// What was done to names since their directory was synced.
    renamed: Vec<Naming>,
    files: BTreeMap<u64, Content>,
    synced_files: BTreeMap<u64, Content>,
    /// What was done to files since they were synced, by number.
    changes: Vec<(u64, u64, Change)>,
    /// The number of the next change.
    moment: u64,
    /// The number of the next file.
    next: u64,
}

#[derive(Clone)]
struct Naming {
    from: Option<PathBuf>,
    to: Option<PathBuf>,
    file: u64,
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Len(u64),
}

/// A point in the history of changes: what a sync covers that is begun now.
#[derive(Clone, Copy)]
pub(super) struct Mark(u64);

impl Disk {
    /// Makes an empty file.
    pub(super) fn create(&mut self, path: &Path) -> io::Result<u64> {
        if self.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = self.next;
        self.next += 1;
        self.files.insert(file, Content::default());
        self.synced_files.insert(file, Content::default());
        self.name(Naming { from: None, to: Some(path.to_owned()), file });
        Ok(file)
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<u64> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let file = self.find(path)?;
        self.name(Naming { from: Some(path.to_owned()), to: None, file });
        Ok(())
    }

    pub(super) fn remove_all(&mut self) {
        let all: Vec<_> = self.names.iter().map(|(path, file)| (path.clone(), *file)).collect();
        all.into_iter().for_each(|(path, file)| self.name(Naming { from: Some(path), to: None, file }));
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let file = self.find(from)?;
        self.name(Naming { from: Some(from.to_owned()), to: Some(to.to_owned()), file });
        Ok(())
    }

    fn name(&mut self, naming: Naming) {
        naming.apply(&mut self.names);
        self.renamed.push(naming);
    }

    /// What has been done to names in a directory survives from now on.
    pub(super) fn sync_directory(&mut self, directory: &Path) {
        let names = &mut self.synced_names;
        self.renamed.retain(|naming| {
            let is_here = naming.is_in(directory);
            if is_here {
                naming.apply(names);
            }
            !is_here
        });
    }

    /// The files of a directory.
    pub(super) fn list(&self, directory: &Path) -> Vec<Entry> {
        let here = self.names.iter().filter(|(path, _)| path.parent() == Some(directory));
        here.filter_map(|(path, file)| {
            let name = path.file_name()?.to_str()?.to_owned();
            Some(Entry { name, len: self.len(*file) })
        })
        .collect()
    }

    pub(super) fn len(&self, file: u64) -> u64 {
        self.files.get(&file).map_or(0, Content::len)
    }

    /// Bytes of all files that have a name.
    pub(super) fn used(&self) -> u64 {
        self.names.values().map(|file| self.len(*file)).sum()
    }

    pub(super) fn read(&self, file: u64, offset: u64, into: &mut [u8]) -> usize {
        self.files.get(&file).map_or(0, |content| content.read(offset, into))
    }

    pub(super) fn write(&mut self, file: u64, offset: u64, bytes: Vec<u8>) {
        self.change(file, Change::Write(offset, bytes));
    }

    pub(super) fn set_len(&mut self, file: u64, len: u64) {
        self.change(file, Change::Len(len));
    }

    fn change(&mut self, file: u64, change: Change) {
        if let Some(content) = self.files.get_mut(&file) {
            change.apply(content);
            self.changes.push((self.moment, file, change));
            self.moment += 1;
        }
    }

    /// Turns bits around, where nothing has written: synced or not.
    pub(super) fn flip(&mut self, file: u64, offset: u64, mask: u8) {
        for content in
            [&mut self.files, &mut self.synced_files].into_iter().filter_map(|all| all.get_mut(&file))
        {
            let mut byte = [0];
            if content.read(offset, &mut byte) == 1 {
                content.write(offset, &[byte[0] ^ mask]);
            }
        }
    }

    /// How far a sync reaches that is begun now.
    pub(super) fn mark(&self) -> Mark {
        Mark(self.moment)
    }

    /// What had been done to the file at the mark survives from now on.
    pub(super) fn sync(&mut self, file: u64, mark: Mark) {
        let Some(content) = self.synced_files.get_mut(&file) else { return };
        self.changes.retain(|(moment, of, change)| {
            let is_covered = *of == file && *moment < mark.0;
            if is_covered {
                change.apply(content);
            }
            !is_covered
        });
    }

    /// What is there after a loss of power.
    pub(super) fn after_power_cut(&self, random: &mut Random) -> Self {
        let (mut names, mut files) = (self.synced_names.clone(), self.synced_files.clone());
        self.renamed.iter().filter(|_| random.chance(0.5)).for_each(|naming| naming.apply(&mut names));
        for (_, file, change) in &self.changes {
            if let Some(content) = files.get_mut(file) {
                change.survive(content, random);
            }
        }
        Self::settled(names, files, self.next)
    }

    /// What is there after the process was killed: everything.
    pub(super) fn after_kill(&self) -> Self {
        let mut left = self.clone();
        left.files.retain(|file, _| self.names.values().any(|named| named == file));
        left
    }

    fn settled(names: BTreeMap<PathBuf, u64>, mut files: BTreeMap<u64, Content>, next: u64) -> Self {
        files.retain(|file, _| names.values().any(|named| named == file));
        let (synced_names, synced_files) = (names.clone(), files.clone());
        Self { names, synced_names, files, synced_files, next, ..Self::default() }
    }
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        if let Some(from) = self.from.as_ref().filter(|from| names.get(*from) == Some(&self.file)) {
            names.remove(from);
        }
        if let Some(to) = &self.to {
            names.insert(to.clone(), self.file);
        }
    }

    fn is_in(&self, directory: &Path) -> bool {
        self.from.iter().chain(&self.to).any(|path| path.parent() == Some(directory))
    }
}

impl Change {
    fn apply(&self, content: &mut Content) {
        match self {
            Self::Write(offset, bytes) => content.write(*offset, bytes),
            Self::Len(len) => content.set_len(*len),
        }
    }

    /// Whole, not at all, or torn between sectors.
    fn survive(&self, content: &mut Content, random: &mut Random) {
        match (random.below(3), self) {
            (0, _) => self.apply(content),
            (1, Self::Write(offset, bytes)) => {
                let mut at = *offset;
                let end = offset + bytes.len() as u64;
                while at < end {
                    let next = ((at / SECTOR + 1) * SECTOR).min(end);
                    if random.chance(0.5) {
                        content.write(at, &bytes[(at - offset) as usize..(next - offset) as usize]);
                    }
                    at = next;
                }
            }
            _ => {}
        }
    }
}
