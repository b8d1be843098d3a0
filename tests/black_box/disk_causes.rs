//! Ways in which a directory fails, with what a machine has to do it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use elcache_tests::content::Content;
use elcache_tests::home::Home;
use elcache_tests::node::wait_for;
use elcache_tests::{Node, report};

use crate::disk_directories::{Injected, Tmpfs, allow, run};

/// A file system with a directory for a node: in memory, or an ext4 in a file, which can be frozen and give up.
pub(crate) struct Place {
    /// Where it is mounted.
    root: PathBuf,
    memory: Option<Tmpfs>,
}

impl Place {
    /// In memory; nothing where this cannot be done.
    pub(crate) fn tmpfs(root: PathBuf) -> Option<Self> {
        let memory = Tmpfs::mount(root.clone(), "256m")?;
        allow(&root, 0o777);
        Some(Self { root, memory: Some(memory) })
    }

    /// In a file; nothing where this cannot be done.
    pub(crate) fn ext4(root: PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&root).expect("a place for it");
        if mount_ext4(&root) {
            return Some(Self { root, memory: None });
        }
        report("skipped: a file system in a file cannot be mounted here");
        None
    }

    /// The node's directory in it.
    pub(crate) fn dir(&self) -> PathBuf {
        self.root.join("cache")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.memory.is_none() {
            run("umount", &["-l", text(&self.root)]);
        }
    }
}

/// Mounts a new file system in a file; whether this can be done.
fn mount_ext4(root: &Path) -> bool {
    let image = root.with_extension("image");
    // One that is in use still has no name any more.
    let _ = std::fs::remove_file(&image);
    let file = std::fs::File::create(&image).expect("an image");
    file.set_len(256 << 20).expect("an image of this length");
    let mounted =
        run("mkfs.ext4", &["-q", text(&image)]) && run("mount", &["-o", "loop", text(&image), text(root)]);
    if mounted {
        allow(root, 0o777);
    }
    mounted
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `rm -r`; in the end the directory is made again.
    Removed,
    /// It has another name, and comes back with what it had.
    Moved,
    /// The mount becomes read-only.
    ReadOnly,
    /// The node may not enter it any more.
    Denied,
    /// Somebody else takes all that the file system has.
    Full,
    /// What is written does not end.
    Hangs,
    /// The file system gives up, and in the end there is a new one.
    GivesUp,
    /// EIO, in all directories.
    WritesFail,
    SyncsFail,
    ReadsFail,
    /// Segments of another node are copied in.
    Foreign,
}

pub(crate) const FAULTS: [Fault; 11] = [
    Fault::Removed,
    Fault::Moved,
    Fault::ReadOnly,
    Fault::Denied,
    Fault::Full,
    Fault::Hangs,
    Fault::GivesUp,
    Fault::WritesFail,
    Fault::SyncsFail,
    Fault::ReadsFail,
    Fault::Foreign,
];

/// What makes a directory fail, until this is dropped.
pub(crate) struct Cause(Option<Box<dyn FnOnce()>>);

impl Cause {
    fn until(undo: impl FnOnce() + 'static) -> Self {
        Self(Some(Box::new(undo)))
    }
}

impl Drop for Cause {
    fn drop(&mut self) {
        if let Some(undo) = self.0.take() {
            undo();
        }
    }
}

impl Fault {
    /// Whether it needs a file system that not every directory has.
    pub(crate) fn needs_ext4(self) -> bool {
        matches!(self, Self::Hangs | Self::GivesUp)
    }

    /// Whether the node must say within two seconds that the directory is out: clients that write bring it to light.
    pub(crate) fn is_told(self) -> bool {
        !matches!(self, Self::Full | Self::ReadsFail | Self::Foreign)
    }

    /// Whether it is all directories that fail, or any of them.
    pub(crate) fn is_everywhere(self) -> bool {
        matches!(self, Self::WritesFail | Self::SyncsFail | Self::ReadsFail)
    }

    /// Has it happen to a directory; nothing where the machine cannot do that.
    pub(crate) fn befalls(self, place: &Place, node: &Node) -> Option<Cause> {
        let (root, dir) = (place.root.clone(), place.dir());
        match self {
            Self::Removed => {
                let gone = wait_for(Duration::from_secs(10), || {
                    let _ = std::fs::remove_dir_all(&dir);
                    (!dir.exists()).then_some(())
                });
                assert!(gone.is_some(), "{} cannot be removed", dir.display());
                Some(Cause::until(move || make(&dir)))
            }
            Self::Moved => {
                let away = root.join("away");
                std::fs::rename(&dir, &away).expect("it goes");
                Some(Cause::until(move || std::fs::rename(&away, &dir).expect("it is back")))
            }
            Self::ReadOnly => {
                let path = text(&dir).to_owned();
                let mounted = run("mount", &["--bind", &path, &path]);
                let cause = Cause::until(move || _ = run("umount", &["-l", &path]));
                (mounted && run("mount", &["-o", "remount,bind,ro", text(&dir)])).then_some(cause)
            }
            Self::Denied => {
                allow(&dir, 0);
                Some(Cause::until(move || allow(&dir, 0o777)))
            }
            Self::Full => {
                let fill = root.join("fill");
                let to = format!("of={}", fill.display());
                assert!(!run("dd", &["if=/dev/zero", &to, "bs=1M"]), "it is full");
                Some(Cause::until(move || std::fs::remove_file(&fill).expect("there is room again")))
            }
            Self::Hangs => {
                let frozen = run("fsfreeze", &["-f", text(&root)]);
                frozen.then(|| Cause::until(move || _ = run("fsfreeze", &["-u", text(&root)])))
            }
            Self::GivesUp => {
                let has = run("mount", &["-o", "remount,abort", text(&root)]);
                has.then(|| {
                    Cause::until(move || {
                        assert!(
                            run("umount", &["-l", text(&root)]) && mount_ext4(&root),
                            "a new file system"
                        );
                        make(&dir);
                    })
                })
            }
            Self::WritesFail => inject(node, "pwritev:error=EIO"),
            Self::SyncsFail => inject(node, "fdatasync:error=EIO"),
            Self::ReadsFail => inject(node, "preadv:error=EIO"),
            Self::Foreign => {
                copy_in(&dir);
                Some(Cause(None))
            }
        }
    }
}

fn inject(node: &Node, what: &str) -> Option<Cause> {
    Injected::into(node, &[what]).map(|injected| Cause::until(move || drop(injected)))
}

fn make(dir: &Path) {
    std::fs::create_dir(dir).expect("the directory is made again");
    allow(dir, 0o777);
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

/// Segments of a node that has the same keys with other values get the next numbers here. In a directory that is none of the node's yet
/// they would be for the operator to remove.
fn copy_in(dir: &Path) {
    let home = Home::new("64", "64M");
    let node = home.node();
    for key in 0..200 {
        node.put(&format!("/cache/{key}"), Content::new(key).bytes(50_000));
    }
    node.stop();
    if !dir.join("IDENTITY").is_file() {
        return;
    }
    let segments = dir.join("segments");
    let names = std::fs::read_dir(&segments).into_iter().flatten().flatten();
    let number = |name: &str| u32::from_str_radix(name.split('.').next()?, 16).ok();
    let highest = names.filter_map(|entry| number(entry.file_name().to_str()?)).max().unwrap_or(0);
    for (path, bytes) in home.content() {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let (Some(number), Some((_, kind))) = (number(name), name.split_once('.')) else { continue };
        // The directory may have gone meanwhile.
        let copy = segments.join(format!("{:08x}.{kind}", highest + number));
        if std::fs::write(&copy, bytes).is_ok() {
            allow(&copy, 0o666);
        }
    }
}

/// Whether there is a program.
pub(crate) fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}
